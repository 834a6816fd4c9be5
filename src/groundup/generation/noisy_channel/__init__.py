"""The noisy channel: what was meant, from what came through (Shannon 1948; Jelinek 1976; Brown et al. 1990).

    meant = argmax over w of P(w) P(typed | w)

A language model says what people write, a channel model how it gets garbled. Speech recognition and translation were
built thus; here it corrects spelling (Kernighan, Church & Gale 1990), a sentence at a time.

    edits      the channel: single edits with a confusion matrix, given or learned from pairs
    decoder    candidates for each word, and the best path through them
"""

from groundup.generation.noisy_channel.decoder import Corrector, Decoded, sentences
from groundup.generation.noisy_channel.edits import EditChannel, corrupted, keyboard_channel, learn_channel

__all__ = ["Corrector", "Decoded", "EditChannel", "corrupted", "keyboard_channel", "learn_channel", "sentences"]
