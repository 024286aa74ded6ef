"""Commands on a machine: run, streamed, captured and ended."""
