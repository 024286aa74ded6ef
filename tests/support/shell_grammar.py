"""Commands nobody wrote: generated from a grammar of what shells can do, without what depends on chance.

Left out is what two runs of the same shell need not agree on: process ids, times, who of two writers comes first; and
what a shell itself says goes to standard error alone, since it names the shell and the place in the text. Besides,
two things are known to differ where a shell that waited runs its command by `eval`: behind lines that failed, bash ends
an unclosed quote with 2 and not with the last line's exit code; and EXIT traps that `-c` forgets are run. Neither is
generated.
"""

import random
from collections.abc import Callable

WORDS = (
    "a",
    "žluť",
    "two words",
    "$HOME",
    "it's",
    'q"q',
    "*",
    "\\t",
    "-n",
    "%s",
    "#",
    "x;y",
    "(",
    "~",
    "!",
    "a\nb",
    "",
)
SIGNALS = ("TERM", "HUP", "USR1", "PIPE", "ALRM", "KILL")
FILTERS = (
    "cat",
    "sort",
    "wc -c",
    "tr a-z A-Z",
    "sed 's/a/<&>/'",
    "od -c",
    'while IFS= read -r l; do echo "[$l]"; done',
)


class Grammar:
    """One generated command after the other; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._pieces: tuple[Callable[[int], str], ...] = (
            self._pipe,
            self._here_document,
            self._job,
            self._redirection,
            self._function,
            self._branch,
            self._loop,
            self._group,
            self._substitution,
            self._input,
        )

    def command(self) -> str:
        """A whole command: some steps, and perhaps a last one that ends the shell in its own way."""
        if self._random.random() < 0.02:
            return self._one(
                "echo 'unclosed", 'echo "unclosed', "echo $(unclosed", "set -u; echo $unset; echo unreached"
            )
        steps = [self._step(2) for _ in range(self._random.randint(1, 3))]
        if self._random.random() < 0.2:  # `$$` is the shell itself, so only here
            steps.insert(0, self._trap(1))
        if self._random.random() < 0.4:
            steps.append(self._end())
        text = steps[0]
        for step in steps[1:]:
            # What follows a here-document has to stand on a line of its own.
            text += ("\n" if "<<" in text else self._one("; ", "\n", " && ", " || ")) + step
        return text

    def _one(self, *choices: str) -> str:
        return self._random.choice(choices)

    def _step(self, depth: int) -> str:
        if depth == 0 or self._random.random() < 0.3:
            return self._simple()
        return self._random.choice(self._pieces)(depth - 1)

    def _inline(self, depth: int) -> str:
        """A step that may stand before a closing word on the same line."""
        while "<<" in (step := self._step(depth)):
            pass
        return step

    def _word(self) -> str:
        word = self._random.choice(WORDS)
        if self._random.random() < 0.5:
            return "'" + word.replace("'", "'\\''") + "'"
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _simple(self) -> str:
        words = " ".join(self._word() for _ in range(self._random.randint(0, 3)))
        number = self._random.randint(0, 255)
        return self._one(
            f"printf '<%s>' {words}",
            f"printf '%s\\n' {words}",
            f"set -- {words}; echo $#",
            "true",
            "false",
            "pwd",
            "nosuchcommand",
            "ls /nosuchfile",
            "{ ls /nosuchfile; echo out; } 2>&1 >/dev/null",
            f"(exit {number})",
            f"sh -c 'exit {number}'; echo $?",
            f"sh -c 'kill -{self._one(*SIGNALS)} $$'; echo $?",
            f"echo $(({number} * 3 - 1))",
            f'v={self._word()}; echo "$v" "${{v#a}}" ${{#v}}',
            "printf '\\377\\001\\000\\177'",
            "echo to-stderr >&2",
            "umask; umask 077; umask",
            'echo "$MCP_SSH_LINE|$#|$1|$?"',
        )

    def _pipe(self, depth: int) -> str:
        return f"{{ {self._inline(depth)}\n}} 2>/dev/null | " + " | ".join(
            self._one(*FILTERS) for _ in range(self._random.randint(1, 2))
        )

    def _here_document(self, depth: int) -> str:
        word = self._one("EOF", "'EOF'", '"E F"')
        lines = "\n".join(self._one("plain", "\ttab", "$HOME", 'it\'s \\ "q"', "$(echo sub)", "") for _ in range(3))
        last = word.strip("\"'")
        return f"{self._one('cat', 'sort', 'wc -l')} <<{self._one('', '-')}{word}\n{lines}\n{last}"

    def _job(self, depth: int) -> str:
        inner = self._inline(depth)
        job = self._one(
            f"{{ {inner}\n}} & wait",
            f"{{ {inner}\n}} & wait $!; echo $?",
            # The pause: a child that is not yet `sleep` still has the traps of its shell, in every shell.
            f"sleep 10 & sleep 0.05; kill -{self._one('TERM', 'KILL')} $!; wait $! 2>/dev/null; echo $?",
            f"({inner}\n) & wait; sleep 0.01 & wait",
        )
        return f"{{ {job}\n}}"

    def _redirection(self, depth: int) -> str:
        inner = self._inline(depth)
        return f"{{ {inner}\n}} " + self._one(
            ">&2", ">/dev/null 2>&1", "2>/dev/null", "</dev/null", ">&-", "2>&-", "0<&-", "3>&1 >&3"
        )

    def _function(self, depth: int) -> str:
        return f"f() {{ {self._inline(depth)}\n{self._one('', 'return 3', 'echo $#')}\n}}; f {self._word()} b"

    def _trap(self, depth: int) -> str:
        signal = self._one("TERM", "HUP", "USR1", "ALRM")
        return self._one(
            f"trap 'echo got' {signal}; kill -{signal} $$; echo after",
            f"trap 'echo bye' TERM; {self._inline(depth)}",
            f"trap '' {signal}; kill -{signal} $$; echo ignored",
        )

    def _branch(self, depth: int) -> str:
        return self._one(
            f"if {self._inline(0)}\nthen {self._inline(depth)}\nelse echo no\nfi",
            f"case {self._word()} in a*) {self._inline(depth)}\n;; *) echo other ;; esac",
            f"! {{ {self._inline(depth)}\n}}",
        )

    def _loop(self, depth: int) -> str:
        return self._one(
            f'for i in 1 {self._word()} 3; do echo "$i"; {self._inline(depth)}\ndone',
            f"n=0; while [ $n -lt 3 ]; do n=$((n + 1)); [ $n = 2 ] && continue; {self._inline(0)}\ndone",
        )

    def _group(self, depth: int) -> str:
        return self._one(f"({self._inline(depth)}\n)", f"{{ {self._inline(depth)}\n}}", f"eval {self._quoted(depth)}")

    def _quoted(self, depth: int) -> str:
        return "'" + self._inline(depth).replace("'", "'\\''") + "'"

    def _substitution(self, depth: int) -> str:
        return f'x=$({self._inline(depth)}\n); echo "$?:$x"'

    def _input(self, depth: int) -> str:
        return self._one('read -r line; echo "$line"', "head -c 5", "cat", "wc -c", 'read a b; echo "$b|$a"; cat')

    def _end(self) -> str:
        return self._one(
            f"exit {self._random.randint(0, 255)}",
            "exec echo replaced",
            f"kill -{self._one(*SIGNALS)} $$",
            f"sh -c 'kill -{self._one(*SIGNALS)} $$'",
            "exec 1>&-; echo nowhere",
            "exec 0<&-; cat",
            "set -e; false; echo unreached",
            "if",
            "echo trailing\\",
            "# a comment",
            "return 4; echo went-on",
            "exec nosuchcommand",
            "trap 'exit 9' TERM; kill -TERM $$; sleep 5",
        )
