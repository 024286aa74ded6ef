"""The sh scripts of background tasks, for dash, bash and BusyBox ash.

A task's folder lies in a folder of the account that nobody else may enter. In it:

    cookie      the value of MCP_SSH_CALL in every process of the task
    command     what runs
    run         process id and start time of the command and of its keeper, the boot's id, when the task began, where
    end         exit code and time, put there by one rename
    output.N    the stream's bytes from offset N on, in pieces; the oldest go when there are more than are kept
    output.open while a process may still write to the stream; `error` has the same files
    output.cut  the disk was full, and what came then was dropped
    cancelled   somebody had the task ended
    seen        its end was told, so its name may be used again

Every variable starts with `t_`, since what is exported to us under another name is the command's.
"""

from mcp_ssh.linux.framing import pack_script

# Folders are entered first and judged then, by what `.` is: nobody can exchange them in between.
_FOLDERS = r"""
t_mark=$1$2 t_id=$3
shift 3
t_uid=$(id -u)
t_stop() { printf "%s %s\n%s%s%s%s" "$t_mark" "$1" "$2" "$t_mark" "$t_mark" "$t_mark"; exit 0; }
t_ours() { [ "$(stat -c "%u %a" . 2>/dev/null)" = "$t_uid 700" ]; }
t_home() {
    t_state=${XDG_STATE_HOME:-}
    case $t_state in /*) [ -O "$t_state" ] || t_state= ;; *) t_state= ;; esac
    t_state=${t_state:-${HOME:-/nowhere}/.local/state}/mcp-ssh/tasks
    [ "$1" != make ] || { mkdir -p "$t_state" && chmod 700 "$t_state"; } 2>/dev/null
    cd -P "$t_state" 2>/dev/null && t_ours
}
t_aside() {
    cd -P /var/tmp 2>/dev/null || return 1
    t_state=$(pwd -P)/mcp-ssh-$t_uid
    [ "$1" != make ] || mkdir -m 700 "./mcp-ssh-$t_uid" 2>/dev/null
    cd -P "./mcp-ssh-$t_uid" 2>/dev/null && [ "$(pwd -P)" = "$t_state" ] && t_ours
}
"""

# What has ended may leave its number to another process, so the time it started is compared, too. Whether anything
# lives is asked before whether there is an end: the keeper writes the end first and goes then. A home folder may be
# shared by machines, and one knows nothing of what runs on another.
_STATE = r"""
t_alive() {
    t_line=
    while IFS= read -r t_part || [ -n "$t_part" ]; do t_line=$t_part; done 2>/dev/null <"/proc/$1/stat"
    [ -n "$t_line" ] || return 1
    set -- "$2" ${t_line##*) }
    [ "$2" != Z ] && [ "$2" != X ] && [ "${21}" = "$1" ]
}
t_stamp() {
    t_line=
    while IFS= read -r t_part || [ -n "$t_part" ]; do t_line=$t_part; done 2>/dev/null <"/proc/$1/stat"
    set -- ${t_line##*) }
    echo "${20:-0}"
}
# A container that is started again has the same boot, and another first process.
t_read_boot() {
    t_boot=
    IFS= read -r t_boot 2>/dev/null </proc/sys/kernel/random/boot_id
    t_boot=$t_boot.$(t_stamp 1)
}
t_living() {
    [ $# = 7 ] || return 0
    if [ "$5" = "$t_boot" ]; then
        if t_alive "$3" "$4" || t_alive "$1" "$2"; then t_word=running; fi
    elif [ "$7" != "$(uname -n)" ]; then
        t_word=elsewhere
    else
        t_gone=restarted
    fi
}
t_look() {
    t_run= t_end= t_cookie= t_gone= t_word=lost
    t_read_boot
    IFS= read -r t_run 2>/dev/null <run
    IFS= read -r t_cookie 2>/dev/null <cookie
    t_living $t_run
    IFS= read -r t_end 2>/dev/null <end && t_word=ended
    t_flags=$t_gone
    for t_flag in cancelled output.cut error.cut output.open error.open; do
        [ ! -e "$t_flag" ] || t_flags="$t_flags $t_flag"
    done
    return 0
}
t_number() {
    t_n=${1#*.}
    t_n=${t_n#"${t_n%%[!0]*}"}
    t_n=${t_n:-0}
}
t_bounds() {
    t_first=0 t_total=0
    set -- "$1".[0-9]*
    [ -e "$1" ] || return 0
    t_number "$1"
    t_first=$t_n
    for t_last; do :; done
    t_number "$t_last"
    t_size=$(stat -c %s "$t_last" 2>/dev/null)
    t_total=$((t_n + ${t_size:-0}))
}
"""

_FIND = r"""
{ t_home look && cd "./$t_id" 2>/dev/null; } || { t_aside look && cd "./$t_id" 2>/dev/null; } || t_stop missing
"""

# $1: keep bytes of each stream. $2: days to keep what has ended. $3: folder to run in, or nothing. $4, $5: sizes of
# settings and command, which stand on standard input, before what is the task's own. $6$7: the cookie. $8: the keeper.
START = pack_script(
    _FOLDERS
    + _STATE
    + r"""
for t_tool in stat dd find tail head setsid mkfifo; do
    command -v "$t_tool" >/dev/null 2>&1 || t_stop lacks "$t_tool"
done
t_umask=$(umask) t_login=${PWD:-/}
# A relative one gets a dot in front: to cd the name - means another folder.
case $3 in
    "" | /*) t_cwd=$3 ;;
    "~") t_cwd=${HOME:-.} ;;
    "~/"*) t_cwd=${HOME:-.}/${3#??} ;;
    *) t_cwd=./$3 ;;
esac
umask 077
t_settings=$(dd bs=1 count="$4" 2>/dev/null)
[ -z "$t_cwd" ] || (CDPATH= cd -- "$t_cwd") >/dev/null 2>&1 || t_stop cwd
t_home make || t_aside make || t_stop unsafe "$t_uid"
if ! t_why=$(LC_ALL=C mkdir "./$t_id" 2>&1); then
    [ -d "./$t_id" ] || t_stop failed "$t_why"
    # Of those who want the name, the one that takes `seen` away gets it.
    mv -f "./$t_id/seen" "./$t_id/taken" 2>/dev/null || t_stop exists
    mv -f "./$t_id" "./.gone.$$" && mkdir "./$t_id" || t_stop exists
    rm -rf "./.gone.$$"
fi
cd "./$t_id" || t_stop missing
t_undo() { cd .. && rm -rf "./$t_id"; t_stop failed "$1"; }
# What is written later, perhaps on a full disk, gets its place now.
t_why=$({ printf "%s%s\n" "$6" "$7" >cookie && dd bs=1 count="$5" >command && cat >stdin &&
    printf "%250s\n" "" >run.new && printf "%60s\n" "" >end.new && : >output.open && : >error.open &&
    mkfifo output.pipe error.pipe; } 2>&1) || t_undo "$t_why"
t_shell=${SHELL:-/bin/sh}
case ${t_shell##*/} in nologin | false) t_shell=/bin/sh ;; esac
# logind may end what a login started when the login ends; a scope of its own is not a part of the login.
t_scope= t_note=
case $(cat /proc/self/cgroup 2>/dev/null) in *session-*.scope*)
    t_name=org.freedesktop.login1
    case $(busctl get-property "$t_name" /org/freedesktop/login1 "$t_name.Manager" KillUserProcesses 2>/dev/null) in
    *true)
        t_scope="systemd-run --quiet --scope --collect"
        if [ "$t_uid" != 0 ]; then
            t_scope="systemd-run --quiet --user --scope --collect"
            # Without lingering the account's own service manager, and its scopes, end with the last login.
            [ "$(loginctl show-user "$t_uid" --property=Linger 2>/dev/null)" = Linger=yes ] || t_scope=false
        fi
        $t_scope true >/dev/null 2>&1 || t_scope= t_note=ends_with_login
        ;;
    esac
    ;;
esac
t_setsid=$(command -v setsid)
t_said=$(printf %s "$t_settings" | {
    exec 4<&0
    $t_scope setsid sh -c "$8" sh "$t_setsid" "$t_shell" "$t_umask" "$t_login" "$t_cwd" "$1" \
        <&4 2>/dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
})
case $t_said in "started "*) ;; *) t_undo "$t_said" ;; esac
cd .. || exit
find . -mindepth 2 -maxdepth 2 -name end -mtime "+$2" 2>/dev/null | while IFS= read -r t_old; do
    rm -rf "${t_old%/end}"
done
find . -mindepth 2 -maxdepth 2 -name cookie -mtime "+$2" 2>/dev/null | while IFS= read -r t_old; do
    (cd "${t_old%/cookie}" && t_look && [ "$t_word" = lost ]) && rm -rf "${t_old%/cookie}"
done
t_stop ok "${t_said#started } $t_note"
"""
)

# Keeps the task: starts it, takes in what it says, and writes down how it ended. Its folder is where it stands. It gets
# settings and command from elsewhere than its command line, so that no search for them finds it.
# $1: setsid. $2: the account's shell. $3: its umask. $4: its login folder. $5: folder to run in. $6: keep bytes.
KEEPER = pack_script(
    _STATE
    + r"""
t_clock() {
    t_now=$(date +%s.%N)
    case $t_now in *[!0-9.]* | *.) t_now=$(date +%s) ;; esac
    echo "$t_now"
}
t_nap() { sleep 0.05 2>/dev/null || sleep 1; }
t_drop() {
    t_keep=$2 t_at=$3
    set -- "$1".[0-9]*
    while [ $# -gt 2 ]; do
        t_number "$2"
        [ $((t_at - t_n)) -ge "$t_keep" ] || break
        rm -f "$1"
        shift
    done
}
# dd passes on what it reads at once, be it less than a block. A piece is an eighth of what is kept and a block at most.
t_collect() {
    rm -f "$1.pipe"
    [ "$1" = output ] || rm -f stdin
    t_at=0 t_size=0 t_file=$1.0000000000000000
    while :; do
        t_count=$((($2 / 8 - t_size) / 16384))
        [ "$t_count" -gt 0 ] || t_count=1
        dd bs=16384 count="$t_count" >>"$t_file" || { : >"$1.cut"; break; }
        t_new=$(stat -c %s "$t_file")
        [ "$t_new" -gt "$t_size" ] || break
        t_size=$t_new
        [ "$t_size" -ge $(($2 / 8)) ] || continue
        t_at=$((t_at + t_size)) t_size=0
        t_file=$(printf "%s.%016d" "$1" "$t_at")
        : >"$t_file"
        t_drop "$1" "$2" "$t_at"
    done
    cat >/dev/null
    rm -f "$1.open"
}
set -- "$@" "$(cat)" "$(cat command && echo .)" "$(t_clock)"
exec 3>&1 >/dev/null 2>&1
# In subshells: a function's own redirections are undone at its end, for which dash holds on to what 3 was.
(t_collect output "$6") <output.pipe 3>&- &
(t_collect error "$6") <error.pipe 3>&- &
(
    umask "$3"
    cd "$4" || cd "${HOME:-/}" || cd /
    [ -z "$5" ] || CDPATH= cd -- "$5" || exit 1
    unset OLDPWD
    eval "$7"
    exec "$1" "$2" -c "${8%.}"
) <stdin >output.pipe 2>error.pipe 3>&- &
t_pid=$!
t_read_boot
printf "%s %s %s %s %s %s %s\n" \
    "$t_pid" "$(t_stamp "$t_pid")" $$ "$(t_stamp $$)" "$t_boot" "$9" "$(uname -n)" 1<>run.new &&
    mv -f run.new run && echo "started $9 $t_pid" >&3 || kill -KILL "$t_pid"
exec 3>&-
wait "$t_pid"
t_code=$? t_tries=0
# What a child that lives on still says is collected, too, but does not keep the task from having ended.
while [ "$t_tries" -lt 20 ] && { [ -e output.open ] || [ -e error.open ]; }; do
    t_tries=$((t_tries + 1))
    t_nap
done
printf "%s %s\n" "$t_code" "$(t_clock)" 1<>end.new && mv -f end.new end
wait
"""
)

# $1, $2: offsets in output and error. $3: most bytes of each. $4: tenths of a second to wait for news. $5: how the
# cookies of tasks begin that are not for this caller. $6: `end` to wait for the end, else for news.
LOOK = pack_script(
    _FOLDERS
    + _STATE
    + _FIND
    + r"""
t_from() {
    t_start=$1
    [ "$t_start" -ge 0 ] || t_start=$((t_total + t_start))
    [ "$t_start" -ge "$t_first" ] || t_start=$t_first
    [ "$t_start" -le "$t_total" ] || t_start=$t_total
}
t_emit() {
    t_at=$2 t_left=$(($3 - $2))
    [ "$t_left" -le "$4" ] || t_left=$4
    for t_file in "$1".[0-9]*; do
        [ "$t_left" -gt 0 ] || break
        t_number "$t_file"
        t_size=$(stat -c %s "$t_file" 2>/dev/null) || break
        t_skip=$((t_at - t_n))
        [ "$t_skip" -lt "$t_size" ] || continue
        t_take=$((t_size - t_skip))
        [ "$t_take" -le "$t_left" ] || t_take=$t_left
        # A piece that is dropped meanwhile ends the answer: what follows has another offset.
        { tail -c "+$((t_skip + 1))" | head -c "$t_take"; } 2>/dev/null <"$t_file" || break
        t_at=$((t_at + t_take)) t_left=$((t_left - t_take))
    done
}
t_wait=$4 t_news=
while :; do
    t_look
    for t_other in $5; do
        case $t_cookie in "$t_other"*) t_stop missing ;; esac
    done
    t_bounds output
    t_from "$1"
    t_out=$t_start t_out_total=$t_total
    t_bounds error
    t_from "$2"
    [ "$t_word" = running ] && [ "$t_wait" -gt 0 ] || break
    t_new=$((t_out_total - t_out + t_total - t_start))
    if [ "$6" != end ] && [ "$t_new" -gt 0 ]; then
        [ "$t_new" -lt "$3" ] || break
        # What is said within a second of the first news comes in one answer.
        [ -n "$t_news" ] || { t_news=$t_new; [ "$t_wait" -le 10 ] || t_wait=10; }
    fi
    # Soon at first, then at less cost.
    t_nap=3
    [ $(($4 - t_wait)) -ge 20 ] || t_nap=1
    sleep "0.$t_nap" 2>/dev/null || { sleep 1; t_nap=10; }
    t_wait=$((t_wait - t_nap))
done
[ "$t_word" != elsewhere ] || t_stop elsewhere "${t_run##* }"
# One without `run` may be about to start.
[ "$t_word" = running ] || [ -z "$t_run" ] || : >seen
printf "%s ok\n%s %s %s %s %s\n%s\n%s\n%s\n%s\n" "$t_mark" \
    "$t_word" "$t_out" "$t_out_total" "$t_start" "$t_total" "$t_run" "$t_end" "$t_flags" "$t_cookie"
head -c 2000 command
printf %s "$t_mark"
t_emit output "$t_out" "$t_out_total" "$3"
printf %s "$t_mark"
t_emit error "$t_start" "$t_total" "$3"
printf %s "$t_mark"
"""
)

LIST = pack_script(
    _FOLDERS
    + _STATE
    + r"""
t_tell() {
    for t_id in *; do
        (
            [ -d "./$t_id" ] && cd "./$t_id" || exit
            t_look
            [ "$t_word" != elsewhere ] || exit
            t_bounds output
            t_out=$t_total
            t_bounds error
            printf "%s\n%s %s %s %s %s\n%s\n%s\n%s\n%s\n" "$t_id" \
                "$t_word" "$t_out" "$t_out" "$t_total" "$t_total" "$t_run" "$t_end" "$t_flags" "$t_cookie"
            head -c 200 command
            printf "\0"
        )
    done
}
printf "%s ok\n%s" "$t_mark" "$t_mark"
if t_home look; then t_tell; fi
if t_aside look; then t_tell; fi
printf "%s%s" "$t_mark" "$t_mark"
"""
)

# The cookie comes on standard input: this script must not be among the processes that bear it. The rest of the
# arguments is the sweep.
CANCEL = pack_script(
    _FOLDERS
    + _STATE
    + r"""
{ t_home look && cd "./$t_id" 2>/dev/null; } || { t_aside look && cd "./$t_id" 2>/dev/null; } || exit
t_look
IFS= read -r t_wanted
[ "$t_wanted" = "$t_cookie" ] || exit
[ "$t_word" != running ] || : >cancelled
exec "$@"
"""
)
