"""How our script answers with several texts at once: in parts, each behind a line that nothing can imitate."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.framing import pack_script
from mcp_ssh.shell_command import Command, script

Parts = Mapping[str, str]
"""The texts of an answer, by name."""

_BEGIN = r"""
mark=$1$2
shift 2
LC_ALL=C; export LC_ALL
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
part() { printf "\n%s %s\n" "$mark" "$1"; }
"""
_END = 'part end; printf "%s\\n" ok\n'


@dataclass(frozen=True)
class PartsAsked:
    """A question: what to run, and the mark of its answer's parts."""

    command: Command
    mark: str

    def parts(self, stdout: bytes) -> Mapping[str, str]:
        """The texts of the answer, by name. One that the machine has not is empty.

        Raises:
            RemoteFailed: The answer is not whole.
        """
        found: dict[str, str] = {}
        for piece in stdout.decode("utf-8", "replace").split(f"\n{self.mark} ")[1:]:
            name, _, text = piece.partition("\n")
            found[name] = text
        if found.pop("end", None) is None:
            raise RemoteFailed(
                "the machine's shell ended before it answered", hint="see with command_exec what `sh` does there"
            )
        return found


def ask_parts(text: str, arguments: Sequence[str] = (), *, first: str = "") -> PartsAsked:
    """A question: a script that says `part NAME` before each text. Its own arguments are `$1` and on.

    What is `first` sees the environment as it is, before locale and path are set; its arguments begin at `$3`.
    """
    halves = secrets.token_hex(8), secrets.token_hex(8)
    return PartsAsked(script(pack_script(first + _BEGIN + text + _END), [*halves, *arguments]), "".join(halves))
