"""What distributions do in different words: one file a kind. They build commands and read answers; they run nothing."""
