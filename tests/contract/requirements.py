"""What this product promises: every documented behaviour with an id, where it is documented, and one sentence.

Tests name the ids they prove with `@pytest.mark.requirement("id")`; `test_requirements.py` checks both directions.
Sources: `guide` and `viewer` are the API documents, `facts` their digest, `design` and `issue` this project's own.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """One promise."""

    id: str
    source: str
    sentence: str


REQUIREMENTS = tuple(
    Requirement(*row)
    for row in (
        (
            "session.connect",
            "guide, POST /session/connect",
            "Connecting answers with a session id and what the account may do.",
        ),
        (
            "session.status",
            "guide, GET /session/status/{session_id}",
            "A session's status says truly whether it is connected.",
        ),
        ("session.list", "guide, GET /session/list", "All of the caller's sessions are listed, keyed by id."),
        ("session.disconnect", "guide, POST /session/disconnect/{session_id}", "A closed session is gone."),
        (
            "session.connect.keys",
            "guide, session fields",
            "A key works by path, by base64 content, and with its passphrase.",
        ),
        ("session.connect.bad_key", "issue 2", "A key that cannot be read or used is named before anything is sent."),
        ("session.connect.refused_login", "issue 2", "A refused login has a code of its own and is never tried again."),
        ("session.connect.network_retry", "guide, retries", "Network failures are tried again as often as asked."),
        (
            "session.connect.deadline",
            "issue 2",
            "One deadline covers look-up, connecting, login and the first channel.",
        ),
        ("session.connect.banner", "facts 1.8, banner_timeout", "A server that does not speak SSH is given up."),
        ("session.owner", "design, session names", "Only its caller, and an admin, sees and uses a session."),
        ("session.keepalive", "facts 1.8, keepalive_interval", "A dead link is noticed."),
        ("session.idle", "design, session names", "A session opened over HTTP ends when it is idle."),
        ("token.revoked", "design, session names", "Revoking a token ends its sessions and what runs on them."),
        (
            "auth.defaults",
            "facts 1.8, auth.default_*",
            "An empty connect uses the configured account; no other host gets its secret.",
        ),
        (
            "auth.identities",
            "design, policy",
            "The owner's key files and agent are for the owner, admins and allowed hosts.",
        ),
        (
            "hostkey.unknown",
            "viewer, host key verification",
            "An unknown key is refused with its fingerprint, and can be accepted.",
        ),
        (
            "hostkey.changed",
            "design, host keys",
            "A changed key is refused, also after a restart and under accept-new.",
        ),
        ("hostkey.revoked", "design, host keys", "A revoked key is refused."),
        ("hostkey.scan", "issue 2", "A machine's keys can be looked at without connecting."),
        ("hostkey.list", "viewer, GET known-hosts/list", "The accepted keys are listed, a row a name."),
        ("hostkey.remove", "viewer, POST known-hosts/remove", "A removed key is unknown again."),
        (
            "connection.saved",
            "design, session names",
            "A machine saved under a name is found by name, number, uuid and pattern, until it is removed.",
        ),
        (
            "connection.sealed",
            "design, state",
            "Saved secrets are sealed: in no file, answer or history, and opened by their own key only.",
        ),
        ("connection.owner", "design, session names", "Only its caller, and an admin, sees and uses a connection."),
        (
            "connection.connects",
            "design, session names",
            "A saved name given as session_id connects on first use, to the machine it was saved for last.",
        ),
        ("connection.roles", "design, policy", "Viewers look at saved connections, operators save and remove them."),
        ("command.exec", "guide, POST /command/exec", "A command answers with its documented keys."),
        ("exec.streams", "issue 2", "Both streams come apart, with exit code and duration."),
        ("exec.get_exit_code", "guide, get_exit_code", "Without get_exit_code the exit code is null."),
        ("exec.stdin", "design, exec", "Standard input is closed unless it is given."),
        ("exec.cwd", "issue 2", "A command runs in the folder it was given."),
        ("exec.env", "issue 2", "Environment values reach the command, and no process list."),
        ("exec.bytes", "design, exec", "Bytes that are not UTF-8 are kept."),
        ("exec.output.capped", "design, exec", "Long output keeps its head and tail, and all of it in a blob."),
        ("exec.output.memory", "issue 2", "200 MB of output cost little memory, and the next call comes at once."),
        ("blob.read", "design, exec", "A blob is read by range, tail or pattern."),
        ("exec.timeout.result", "design, exec", "A timeout is a result with status timed_out and stopped."),
        (
            "exec.timeout.kills",
            "design, exec",
            "After a timeout no process of the command is left, for root and others.",
        ),
        ("exec.timeout.output", "design, exec", "What the command said before is kept."),
        ("exec.timeout.channels", "issue 2", "Ended commands leave no channel behind."),
        ("exec.cancel.kills", "design, exec", "A cancelled call leaves no process."),
        ("exec.cancel.mcp", "issue 2", "MCP cancellation stops the command."),
        ("exec.cancel.http", "issue 2", "Closing the HTTP request stops the command."),
        ("exec.parallel", "design, exec", "More commands than the machine has channels wait in order."),
        ("exec.never_twice", "issue 2", "A command is never run again by itself."),
        ("exec.rc_output", "issue 2", "Output is what `ssh host command` shows, rc files included."),
        ("become", "design, become", "A command runs as another account; streams, exit code, folder, input unchanged."),
        ("become.nopass", "design, become", "Without a password sudo -n is tried."),
        ("become.input", "design, become", "The password never becomes input of the command, whatever sudo remembers."),
        ("become.refused", "design, become", "Why it could not be is said; a wrong password is tried once."),
        ("become.doas", "design, become", "doas works where it needs no password, and says so elsewhere."),
        ("become.files", "design, become", "Tools that change the machine do so as another account."),
        ("become.login_password", "design, become", "The password of the session serves for sudo where that is asked."),
        ("become.kills", "design, exec", "What ran as another account is ended like any other command."),
        ("secrets.nowhere", "issue 3", "A secret given to any tool is found nowhere."),
        ("input.refused", "issue 2", "Bad input names the field, the rule and the next step, and changes nothing."),
        ("quoting", "issue 2", "Every argument comes through dash, bash and ash unharmed."),
        ("quoting.hosts", "issue 2", "Hostile arguments of tools do nothing on real hosts."),
        ("server.stop", "issue 2", "A stopping server ends what runs."),
        ("server.exits", "issue 2", "The server exits when stdin closes, on SIGTERM, and when its parent dies."),
        (
            "http.refusals",
            "issue 2",
            "No token, wrong token, role, Host, Origin and body size are refused on every route.",
        ),
        ("http.open_bind", "design, HTTP security", "A bind beyond this machine without TLS or proxy is refused."),
        ("http.contract", "issue 2", "The documented routes are described in /openapi.json and answer on a real host."),
        ("http.fuzz", "issue 2", "No request gets an undocumented status or a 5xx but the documented remote failure."),
        ("file.list", "guide, GET /file/list", "A folder's items come with name, size, mode, is_dir and mtime."),
        ("file.stat", "guide, GET /file/stat", "A path's size, mode, owner and times are told."),
        ("file.read", "guide, GET /file/read", "A file is read as text, by range, or as base64."),
        ("file.write", "guide, POST /file/write", "A file is overwritten, appended to or prepended to."),
        ("file.write.atomic", "design, files", "A write that fails leaves the old file."),
        ("file.write.expected", "design, files", "expected_sha256 protects what somebody else wrote."),
        ("file.upload", "guide, POST /file/upload", "A file is uploaded from a local path, text or base64."),
        ("file.download", "guide, POST /file/download", "A file is downloaded to a local path, or returned as base64."),
        ("file.transfer.memory", "issue 3", "A file of any size travels in constant memory, with equal SHA-256."),
        ("file.transfer.resume", "issue 3", "A transfer that was cut goes on where it ended."),
        ("file.transfer.atomic", "issue 3", "A transfer that fails leaves the old file intact."),
        ("file.transfer.tree", "issue 3", "Folders travel both ways as one stream, whatever the names in them."),
        ("file.transfer.escape", "design, files", "No entry of a tree gets out of the folder it is put into."),
        ("file.transfer.local", "design, files", "Callers over HTTP stay in the folders configured for them."),
        ("file.sftp", "issue 3", "An account with SFTP only can do what files need."),
        ("file.mkdir", "guide, POST /file/mkdir", "A folder is made."),
        ("file.remove", "guide, DELETE /file/remove", "A file is removed."),
        ("file.copy", "guide, POST /file/copy", "A tree is copied on the machine with modes, owners and links."),
        ("file.rmdir", "guide, DELETE /file/rmdir", "A folder is removed with all it holds."),
        ("file.rmdir.guard", "issue 3", "Protected folders are refused by where they really are."),
        ("file.move", "issue 3", "A file or folder is moved, and nothing is replaced unasked."),
        ("file.errors", "issue 2", "Missing is 404, permission denied 403."),
        (
            "cli.exec",
            "issue 3, command line",
            "exec passes on both streams, standard input and the exit code, and its end is the command's end.",
        ),
        (
            "cli.check",
            "issue 3, command line",
            "check says of config, identities, known hosts and machines what is wrong and the next step.",
        ),
        ("cli.client_config", "issue 3, command line", "client-config prints what each known MCP client reads."),
        ("cli.transfer", "issue 3, command line", "upload and download move files, and show how far they are."),
        ("cli.completion", "issue 3, command line", "The shell completes commands, tools, saved names and aliases."),
        ("ways_in.password_only", "issue 3", "A server that takes nothing but a password is logged in to."),
        ("ways_in.questions", "issue 3", "Questions at login are answered with what was given, or told to the caller."),
        ("ways_in.key_then_password", "issue 3", "A server that wants a key and then a password gets both."),
        ("ways_in.password_once", "issue 3", "A password is sent once, whatever methods there are."),
        ("ways_in.certificate", "issue 3", "A user's certificate logs in, beside its key or named by the config."),
        (
            "ways_in.agent",
            "issue 3",
            "The ssh-agent logs in, by SSH_AUTH_SOCK or IdentityAgent, within IdentitiesOnly.",
        ),
        ("ways_in.expired", "issue 3", "A password that must be changed first is a clear error."),
        (
            "ways_in.limited_accounts",
            "issue 3",
            "Accounts with a menu or with SFTP alone are connected for what they can.",
        ),
        ("ways_in.limits", "issue 3", "A server that is full is tried again until it has room."),
        ("ways_in.end", "issue 3", "Commands are ended over a jump, on Dropbear and with one channel too."),
        ("ways_in.ipv6", "issue 3", "IPv6 addresses are hosts."),
        ("ways_in.jump", "issue 3", "ProxyJump chains lead to machines behind machines and end with the session."),
        ("ways_in.jump_trust", "issue 3", "Each machine on the way shows its own host key and gets its own login."),
        ("ways_in.proxy_command", "issue 3", "A ProxyCommand is the way to a machine, and ends with the session."),
        (
            "hostkey.authority",
            "issue 3",
            "A host certificate counts where a @cert-authority line trusts its authority.",
        ),
        ("config.equals_ssh", "issue 3", "~/.ssh/config means to us what `ssh -G` makes of it."),
        ("config.alias", "design, session names", "An alias of ~/.ssh/config is a host to connect to."),
        ("config.owner", "design, policy", "~/.ssh/config is for its owner, admins and allowed hosts."),
        (
            "config.refused_options",
            "design, small ones",
            "An unsupported option on which target or trust depend is refused.",
        ),
        ("config.trust", "issue 3", "The config chooses whom to trust among files, and can make nobody trusted."),
        ("config.match_exec", "issue 3", "Match exec runs for the server's owner alone."),
        ("config.no_injection", "issue 3", "Nothing a caller gives becomes part of a command of the config."),
        ("session.names", "design, session names", "A name that stands for a machine connects to it on first use."),
    )
)
