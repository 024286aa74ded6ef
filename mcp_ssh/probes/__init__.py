"""What tools ask a machine: an sh script for the question, a pure function for the answer. Nothing here runs them."""
