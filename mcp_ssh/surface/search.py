"""Finding tools by words: what they are called, what they do, what they take."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mcp_ssh.tool import AnyTool, Registry, model_fields

_WORD = re.compile(r"[a-z0-9]+")
_NAME, _SENTENCE, _ARGUMENT, _TEXT = 4.0, 2.0, 1.5, 1.0
"""What a word is worth by where it stands."""

_NEAR = 0.6
"""What a word of the tools is worth that is only spelled nearly so, or means nearly the same."""

_CUTOFF = 0.8

_SAME = (
    "delete remove rm rmdir erase forget unlink",
    "list ls dir show enumerate query",
    "read cat view open print get content",
    "write save edit create put change modify",
    "run exec execute command shell bash script",
    "background detach async job task nohup long",
    "connect login ssh open attach session",
    "disconnect close logout quit end",
    "upload copy send push put transfer scp sftp rsync",
    "download fetch get pull transfer scp sftp rsync",
    "move rename mv",
    "copy cp duplicate backup",
    "folder directory mkdir dir path",
    "stat info size permissions owner mode exists",
    "kill stop cancel terminate end signal",
    "process processes ps top pid",
    "service daemon systemd systemctl unit",
    "log logs journal journalctl tail",
    "disk space df du storage filesystem",
    "memory ram cpu load uptime",
    "port ports firewall iptables nftables ufw allow block",
    "tunnel forward proxy socks",
    "user account group passwd",
    "schedule cron crontab timer",
    "package install apt apk dnf upgrade update",
    "fingerprint hostkey key known_hosts trust accept",
    "saved connection connections bookmark host machine server",
    "output blob page truncated rest",
    "root sudo become su doas",
    "status state health alive",
)


def _similar() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in _SAME:
        words = line.split()
        for word in words:
            found.setdefault(word, set()).update(words)
    return {word: frozenset(others) for word, others in found.items()}


_SIMILAR = _similar()


def words(text: str) -> list[str]:
    """The words of a text, small, plurals made singular."""
    found: list[str] = _WORD.findall(text.lower())
    return [each[:-1] if len(each) > 3 and each.endswith("s") and not each.endswith("ss") else each for each in found]


def ranked(registry: Registry, query: str) -> Iterator[AnyTool]:
    """The tools that have to do with the words, best first; equally good ones in the order of their names."""
    sought = words(query)
    texts = {name: _weights(tool) for name, tool in registry.items()}
    known = Counter(word for weights in texts.values() for word in weights)
    values = {word: math.log(1 + len(texts) / count) for word, count in known.items()}
    wanted = [_meant(word, known) for word in sought]
    scores = {
        name: sum(
            max((share * values[word] * weights[word] for word, share in meant.items() if word in weights), default=0)
            for meant in wanted
        )
        for name, weights in texts.items()
    }
    order = sorted((name for name, score in scores.items() if score > 0), key=lambda name: (-scores[name], name))
    return (registry[name] for name in order)


def _meant(word: str, known: Iterable[str]) -> dict[str, float]:
    """Words of the tools that a sought word may mean, and how surely."""
    meant = {near: _NEAR for similar in _SIMILAR.get(word, ()) for near in words(similar)}
    meant |= dict.fromkeys(difflib.get_close_matches(word, known, n=3, cutoff=_CUTOFF), _NEAR)
    return meant | {word: 1.0}


def _weights(tool: AnyTool) -> dict[str, float]:
    sentence, _, rest = tool.description.partition("\n")
    weights: dict[str, float] = {}
    for text, weight in (
        (rest, _TEXT),
        (" ".join(model_fields(tool.params)), _ARGUMENT),
        (sentence, _SENTENCE),
        (f"{tool.name.replace('_', ' ')} {tool.title}", _NAME),
    ):
        weights.update(dict.fromkeys(words(text), weight))
    return weights
