"""N-gram language models: counting and smoothing.

    counts        how often each n-gram of every order was seen, in sorted tables
    good_turing   what is left for what was never seen
    smoothing     from counts to probabilities, by nine methods
    lookup        what a smoothed model says about a document

The model itself, which trains, generates and saves like any other, is `models/text/ngram.py`.
"""
