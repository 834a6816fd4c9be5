"""The catalogue: every technique the project must have, and the tests that prove it."""
