"""What things cost, measured beside a reference in the same run; ratios are findings, milliseconds are not."""
