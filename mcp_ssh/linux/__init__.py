"""What Linux machines are asked and how they answer: sh scripts, parsers, and the ways of each distribution.

These modules build commands and read answers; they run nothing.
"""
