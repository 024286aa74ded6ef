"""Texts that a shell, a terminal or a program would take for more than text."""

HOSTILE = (
    "$(touch /tmp/pwned)", "`touch /tmp/pwned`", "; touch /tmp/pwned", "| touch /tmp/pwned", "&& touch /tmp/pwned",
    "\n touch /tmp/pwned\n", "'; touch /tmp/pwned; '", '"; touch /tmp/pwned; "', "-rf", "--help", "-", "--", "~",
    "~root", "*", "[a-z]", "{a,b}", "!!", "\\", "\\'", "$HOME", "${IFS}", "#", "%s%n", "\x1b[31m", "\r", "\t", " ",
    "a\\\nb", "ščř", "𝄞", "\u202e", "EOF\n", "$'\\x41'", "<(id)", ">/tmp/pwned",
    "\\'\n touch /tmp/pwned\n'\\'",
)  # fmt: skip
