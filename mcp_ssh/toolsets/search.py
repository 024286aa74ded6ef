"""Finding tools by words: what they are called, what they do, what they take."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mcp_ssh.errors import NotFound
from mcp_ssh.messages.suggestions import LONGEST, spelled_like, suggest
from mcp_ssh.tool import AnyTool, Registry, Risk, model_fields

_CUTOFF = 0.8
_SURE = 0.9
_LONG = 5

_WORD = re.compile(r"[a-z0-9]+")
_NAME, _SENTENCE, _ARGUMENT, _TEXT = 4.0, 2.0, 1.5, 1.0
"""What a word is worth by where it stands."""

_NEAR = 0.6
"""What a word of the tools is worth that is only spelled nearly so, or means nearly the same."""

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


def lookup(registry: Registry, name: str, among: Registry | None = None) -> AnyTool:
    """Return the tool of that name.

    Args:
        registry: The tools that may be named.
        name: What the caller said.
        among: The tools that may be suggested, where they are others.

    Raises:
        NotFound: It does not exist; names tools that do what its words say.
    """
    if (tool := registry.get(name)) is not None:
        return tool
    near = [each.name for each in suggest_tools(registry if among is None else among, name)]
    hint = f"did you mean {', '.join(near)}?" if near else "list the tools to see their names"
    raise NotFound(f"there is no tool {name[:LONGEST]!r}", hint=hint)


def suggest_tools(registry: Registry, name: str, most: int = 3) -> list[AnyTool]:
    """Return the tools that an unknown name may mean: those that say all its words, are spelled so, or say some words.

    A tool that destroys is only among the first: what is merely spelled alike may do something else.
    """
    if len(name) > LONGEST:
        return []
    sought = words(name)
    fitting = list(rank_tools(registry, name))
    harmless = {each.name: each for each in registry.values() if each.risk is not Risk.DESTROY}
    meant = [each for each in fitting if _says_all(each, sought)]
    spelled = [harmless[near] for near in suggest(name, harmless, most)]
    partly = [each for each in fitting if each.name in harmless]
    return list({each.name: each for each in (*meant, *spelled, *partly)}.values())[:most]


def _says_all(tool: AnyTool, sought: Iterable[str]) -> bool:
    """Whether name and summary of a tool have each of the words, or one that means the same."""
    said = set(words(f"{tool.name.replace('_', ' ')} {tool.description.partition(chr(10))[0]}"))
    return all(not said.isdisjoint({word, *_SIMILAR.get(word, ()), *_near_misses(word, said)}) for word in sought)


def _near_misses(word: str, known: Iterable[str]) -> list[str]:
    """Return the word that lacks a letter here; short words differ by one from words that mean something else."""
    return spelled_like(word, known, cutoff=_SURE) if len(word) >= _LONG else []


def words(text: str) -> list[str]:
    """The words of a text, small, plurals made singular."""
    found: list[str] = _WORD.findall(text.lower())
    return [each[:-1] if len(each) > 3 and each.endswith("s") and not each.endswith("ss") else each for each in found]


def rank_tools(registry: Registry, query: str) -> Iterator[AnyTool]:
    """The tools that have to do with the words, best first; equally good ones in the order of their names."""
    sought = words(query)
    texts = {name: _weights(tool) for name, tool in registry.items()}
    known = Counter(word for weights in texts.values() for word in weights)
    values = {word: math.log(1 + len(texts) / count) for word, count in known.items()}
    wanted = [_word_meanings(word, known) for word in sought]
    scores = {
        name: sum(
            max((share * values[word] * weights[word] for word, share in meant.items() if word in weights), default=0)
            for meant in wanted
        )
        for name, weights in texts.items()
    }
    order = sorted((name for name, score in scores.items() if score > 0), key=lambda name: (-scores[name], name))
    return (registry[name] for name in order)


def _word_meanings(word: str, known: Iterable[str]) -> dict[str, float]:
    """Words of the tools that a sought word may mean, and how surely."""
    meant = {near: _NEAR for similar in _SIMILAR.get(word, ()) for near in words(similar)}
    meant |= dict.fromkeys(spelled_like(word, known, most=3, cutoff=_CUTOFF), _NEAR)
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
