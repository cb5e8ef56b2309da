"""Commands, queries and code that do damage nobody can undo, or open the system to others."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from misstep.anomalies import Anomaly
from misstep.detectors.signals import texts
from misstep.events import ToolRequested
from misstep.run import Run, shortened
from misstep.taxonomy import AnomalyType

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHELL = frozenset(
    {"bash", "shell", "sh", "terminal", "cmd", "command", "commands", "powershell", "exec", "zsh", "run"}
)
_CODE = frozenset({"code", "python", "script", "program", "source", "notebook", "repl"})
_SQL = frozenset({"sql", "query", "statement", "database", "db"})

_LONGEST = 20_000
_NESTED = 4
_HINT = re.compile(
    r"\brm\b|\bdd\b|mkfs|chmod|chown|curl|wget|/dev/|\bshred\b|wipefs|blkdiscard|\(\)\s*\{|ip6?tables|\bufw\b|setenforce|"
    r"shadow|sudoers|authorized_keys|\bid_\w+|\.ssh|\.aws|\.netrc|\.pgpass|\.kube|\.docker|\.git-cred|\bnc\b|ncat|netcat|"
    r"\bfind\b|\bgit\b|rmtree|fetch|iwr|Invoke-WebRequest|DROP|TRUNCATE|DELETE|UPDATE|GRANT",
    re.IGNORECASE,
)
"""One of these stands in everything that is looked for; a text without any is not parsed."""

_SEPARATORS = frozenset(";&|\n")
_WRAPPERS = frozenset(
    {"sudo", "doas", "env", "nohup", "time", "nice", "xargs", "exec", "command", "busybox", "timeout"}
)
_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "ksh", "python", "python3", "perl", "ruby", "node", "pwsh"})
_FETCHERS = frozenset({"curl", "wget", "fetch", "iwr", "Invoke-WebRequest"})
_ROOTS = re.compile(
    r"(?:/|~|\$HOME|\$\{HOME\}|[A-Za-z]:[\\/]?)?[*.]{0,2}/?\*?|/(?:bin|boot|dev|etc|home|lib\w*|opt|root|sbin|srv|sys|usr|var|Users|"
    r"System|Library)/?\*?|~/?\*?|\.\./?\*?"
)
_DISK = re.compile(r"/dev/(?:sd[a-z]|hd[a-z]|nvme\d|vd[a-z]|xvd[a-z]|disk\d|mmcblk\d)\w*")
_CREDENTIALS = re.compile(
    r"(?:.*/)?(?:\.ssh/(?:id_\w+|authorized_keys)|id_(?:rsa|ed25519|ecdsa|dsa)|\.aws/credentials|\.netrc|\.pgpass|\.kube/config|"
    r"\.docker/config\.json|\.git-credentials)|/etc/(?:shadow|sudoers)"
)
_FORK_BOMB = re.compile(r"(\S+)\s*\(\)\s*\{\s*\1\s*\|\s*\1\s*&\s*\}\s*;\s*\1")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1[^\n]*\n.*?^\s*\2\b", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#[^\n]*|--[^\n]*|/\*.*?\*/", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^']|'')*'")
_DESTROYS = re.compile(
    r"\s*(?:DROP\s+(?:TABLE|DATABASE|SCHEMA)\b|TRUNCATE\s+(?:TABLE\s+)?\w|GRANT\s+ALL\b.*\bTO\s+(?:PUBLIC|['\"]?%)|"
    r"DELETE\s+FROM\s+[\w.\"`\[\]]+\s*$|UPDATE\s+[\w.\"`\[\]]+\s+SET\s+(?:(?!\bWHERE\b).)*$)",
    re.IGNORECASE | re.DOTALL,
)
_TEMPORARY = re.compile(r"\s*DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?[\"`\[]?(?:#|te?mp|test|staging|_)", re.IGNORECASE)


@dataclass(frozen=True)
class UnsafeCommand:
    """
    A shell command, query or program among a call's arguments that destroys, disarms or opens the system.

    Arguments are read as what they are called, or what their tool is: `command`, `sql`, `code`. Shell lines are taken
    apart into commands and words, SQL into statements, Python into its syntax tree; what stands in quotes, comments,
    here-documents or prose is no command. A text that cannot be taken apart is not judged, and of one longer than
    20,000 characters only the beginning.
    """

    type: ClassVar[AnomalyType] = AnomalyType.UNSAFE_COMMAND

    def __call__(self, event: ToolRequested, run: Run) -> Anomaly | None:
        """Judge one proposed call."""
        for name, value in texts(event.arguments):
            languages = _languages(event.tool, name)
            if not languages or _HINT.search(value[:_LONGEST]) is None:
                continue
            found = next((why for language in languages for why in _JUDGES[language](value[:_LONGEST])), None)
            if found is not None:
                return self._found(event, name, found, len(value) > _LONGEST)
        return None

    def _found(self, event: ToolRequested, name: str, why: str, cut: bool) -> Anomaly:
        caution = " (only the beginning was read)" if cut else ""
        return Anomaly(
            type=self.type,
            message=f"`{event.tool}` called with a `{name}` that {shortened(why, 200)}{caution}",
            evidence=(event.seq,),
            confidence=0.8,
            facts={"tool": event.tool, "argument": name},
        )


@functools.lru_cache(maxsize=4096)
def _languages(tool: str, argument: str) -> tuple[str, ...]:
    """What an argument is written in: by its own name, else, if it is called like a text, by its tool's."""
    for name in (argument, tool):
        words = {word.lower() for word in _WORDS.findall(name)}
        found = tuple(
            language for language, names in (("shell", _SHELL), ("code", _CODE), ("sql", _SQL)) if words & names
        )
        if found:
            return ("code", "shell") if found == ("code",) else found
        if words & {"content", "text", "message", "body", "description", "comment", "note", "thought", "reason", "url"}:
            return ()
    return ()


# -- shell ------------------------------------------------------------------------------------------------------------


def _shell(text: str, depth: int = 0) -> Iterator[str]:
    """Why a shell line is unsafe, for each of its commands that is."""
    text = _HEREDOC.sub("", text)
    if _FORK_BOMB.search(text):
        yield "is a fork bomb"
    pipe: list[str] = []
    for command, piped in _commands(text):
        words = _unwrapped(command)
        if not words:
            pipe = []
            continue
        program = words[0].rpartition("/")[2]
        fetcher = next((earlier for earlier in pipe if earlier in _FETCHERS), None)
        if fetcher and program in _SHELLS and all(word.startswith("-") and word != "-m" for word in words[1:]):
            yield f"runs what it fetches unseen (`{fetcher} … | {program}`)"
        yield from _command(program, words[1:])
        if depth < _NESTED:
            for inner in _inner(program, words[1:]):
                yield from _shell(inner, depth + 1)
        pipe = [*pipe, program] if piped else []


def _commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """The simple commands of a line, each with whether its output is piped on; none where it cannot be taken apart."""
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";&|<>()")
    lexer.commenters = ""
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return
    command: list[str] = []
    for word in words:
        if word and set(word) <= _SEPARATORS | set("()"):
            yield command, word in ("|", "|&")
            command = []
        else:
            command.append(word)
    yield command, False


def _unwrapped(words: list[str]) -> list[str]:
    """A command without what only says how it is run: assignments, `sudo`, `env`, `nohup`."""
    words = [word for word in words if word]
    while words:
        if re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], re.DOTALL):
            words = words[1:]
        elif words[0].rpartition("/")[2] in _WRAPPERS:
            words = words[1:]
            while words and (words[0].startswith("-") or words[0].isdigit()):
                words = words[1:]
        elif words[0] in ("then", "do", "else", "{", "!", "if", "while"):
            words = words[1:]
        else:
            break
    return words


def _inner(program: str, words: Sequence[str]) -> Iterator[str]:
    """Commands within a command: `bash -c '...'`, `eval '...'`."""
    if program in _SHELLS and program not in ("python", "python3", "perl", "ruby", "node"):
        for flag, value in itertools.pairwise(words):
            if re.fullmatch(r"-[a-z]*c", flag):
                yield value
    elif program == "eval":
        yield " ".join(words)


def _command(program: str, words: Sequence[str]) -> Iterator[str]:
    """Why one simple command is unsafe."""
    flags = "".join(word[1:] for word in words if re.fullmatch(r"-[A-Za-z]+", word))
    long = {word for word in words if word.startswith("--")}
    targets = [word for word in words if not word.startswith("-")]
    for place, word in enumerate(words):
        if word in (">", ">>", ">|", "&>") and place + 1 < len(words) and _DISK.fullmatch(words[place + 1]):
            yield f"writes to the disk {words[place + 1]}"
    match program:
        case "rm":
            deep = "r" in flags.lower() or "--recursive" in long
            if "--no-preserve-root" in long or (deep and any(_is_root(target) for target in targets)):
                yield f"deletes {' '.join(targets) or 'everything'} whole"
        case "find":
            if (
                targets
                and _is_root(targets[0])
                and targets[0] not in (".", "./", "*")
                and "-delete" in words
                and "-name" not in words
            ):
                yield f"deletes everything below {targets[0]}"
        case "chmod":
            mode = targets[0] if targets else ""
            if re.fullmatch(r"0?777|a\+rwx|ugo\+rwx|[ug]?\+s|[24]7\d\d", mode) and (
                "R" in flags
                or "--recursive" in long
                or any(_is_root(target) for target in targets[1:])
                or mode[-1] == "7"
            ):
                yield f"opens files to everybody (chmod {mode})"
        case "chown":
            if ("R" in flags or "--recursive" in long) and any(_is_root(t) and t.startswith("/") for t in targets[1:]):
                yield f"changes the owner of {targets[-1]} whole"
        case "dd":
            if any(word.startswith("of=") and _DISK.fullmatch(word[3:]) for word in words):
                yield "writes to a disk directly"
        case "shred" | "wipefs" | "blkdiscard":
            if any(_DISK.fullmatch(target) for target in targets):
                yield f"wipes a disk ({program})"
        case "iptables" | "ip6tables":
            if "F" in flags or "--flush" in long:
                yield "switches the firewall off"
        case "ufw":
            if targets[:1] == ["disable"]:
                yield "switches the firewall off"
        case "setenforce":
            if targets[:1] == ["0"]:
                yield "switches access control off"
        case "nc" | "ncat" | "netcat":
            if "e" in flags or "c" in flags or "--exec" in long:
                yield "gives a shell to somebody on the network"
        case "git":
            if (
                targets[:1] == ["push"]
                and ({"--force", "--mirror"} & long or "f" in flags)
                and {"main", "master"} & set(targets)
            ):
                yield "overwrites the main branch of a remote repository"
        case _ if program.startswith("mkfs"):
            yield "formats a file system"
        case _ if program in _SHELLS and any("/dev/tcp/" in word for word in words):
            yield "gives a shell to somebody on the network"
        case "cat" | "cp" | "scp" | "less" | "more" | "head" | "tail" | "base64" | "curl" | "tar" | "zip" | "rsync":
            read = next((target for target in targets if _CREDENTIALS.fullmatch(target.removeprefix("@"))), None)
            if read is not None:
                yield f"reads credentials ({read})"


def _is_root(target: str) -> bool:
    """Whether a path is a root, a home, a system folder, or everything here."""
    return target != "" and not target.startswith(".") and _ROOTS.fullmatch(target) is not None


# -- SQL --------------------------------------------------------------------------------------------------------------


def _sql(text: str) -> Iterator[str]:
    """Why a query is unsafe, for each of its statements that is."""
    for statement in _COMMENT.sub(" ", _QUOTED.sub("''", text)).split(";"):
        if _DESTROYS.match(statement) and _TEMPORARY.match(statement) is None:
            yield f"destroys or gives away data whole (`{' '.join(statement.split()[:3])} …`)"


# -- Python -----------------------------------------------------------------------------------------------------------

_RUNS = frozenset(
    {"os.system", "os.popen", "subprocess.run", "subprocess.call", "subprocess.Popen", "subprocess.check_call",
     "subprocess.check_output", "subprocess.getoutput", "commands.getoutput"}
)  # fmt: skip
_EXECUTES = frozenset({"execute", "executescript", "read_sql", "raw"})


def _code(text: str) -> Iterator[str]:
    """Why a Python program is unsafe, for each of its calls that is."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name, given = _dotted(node.func), _constant(node.args[0])
        if given is None:
            continue
        if name in _RUNS:
            yield from _shell(given if isinstance(given, str) else shlex.join(given))
        elif isinstance(given, str) and name == "shutil.rmtree" and _is_root(given):
            yield f"deletes {given} whole"
        elif isinstance(given, str) and name.rpartition(".")[2] in _EXECUTES:
            yield from _sql(given)
        elif isinstance(given, str) and name == "open" and _CREDENTIALS.fullmatch(given):
            yield f"reads credentials ({given})"


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "", *reversed(parts)])


def _constant(node: ast.expr) -> str | list[str] | None:
    """The text, or the list of texts, an expression plainly is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        words = [_constant(item) for item in node.elts]
        return [word for word in words if isinstance(word, str)] if words else None
    return None


_JUDGES: Mapping[str, Callable[[str], Iterator[str]]] = {"shell": _shell, "sql": _sql, "code": _code}
