"""The SSH~Api family."""
