LC_ALL=C
export LC_ALL
umask 077

# ---- What is said

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'Error: %s\n' "$*" >&2
}

refuse() {
    code=$1
    shift
    fail "$*"
    exit "$code"
}

# ---- What stands

# The routes of a family (4 or 6), one a line, in numbers where names could differ from machine to machine.
standing_routes() {
    ip -o -N "-$1" route show table all | sed -e '
        s/^2 /local /; s/^3 /broadcast /; s/^4 /anycast /; s/^5 /multicast /
        s/^6 /blackhole /; s/^7 /unreachable /; s/^8 /prohibit /; s/^9 /throw /
        s/ pref medium//; s/ linkdown//g; s/ dead//g; s/ rt_trap//g; s/\\[[:space:]]*//g; s/ *$//'
}

# A table of hostgw's as it is, with its counters; nothing where there is none.
standing_table() {
    nft list table "$1" hostgw 2>/dev/null
}

# The same as a file that nft takes, or nothing, in the form in which this nft prints it: made in a network namespace
# of its own, which goes with the command.
in_words_of_nft() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare -n sh -c 'nft -f "$1" && nft -s list table "$2" hostgw' - "$2" "$1" 2>/dev/null
}

# What the sysctls of a plan are, and those that the kernel rewrites with them, as PATH:VALUE.
standing_sysctls() {
    while read -r key _; do
        case $key in
        net.ipv4.ip_forward | net.ipv4.conf.all.forwarding)
            grep -s '' /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding \
                /proc/sys/net/ipv4/conf/*/accept_redirects
            ;;
        net.ipv6.conf.all.*)
            leaf=${key##*.}
            grep -s -H '' /proc/sys/net/ipv6/conf/*/"$leaf"
            ;;
        *) grep -s -H '' "$(path_of "$key")" ;;
        esac
    done <"$1"
}

# The file of a sysctl: dots part the words, and a slash stands for a dot in the name of an interface.
path_of() {
    printf '/proc/sys/%s\n' "$(printf '%s' "$1" | tr './' '/.')"
}

# ---- The plan

# plan_routes FAMILY WANTED STANDING [exact]: what takes the routes from what stands to what is wanted, as `ip -batch` takes it.
# Lines that begin with ! are conflicts: routes of others where one is wanted. In IPv4 the new route comes behind the
# old one and the old one goes; in IPv6 it takes its place, for the kernel would make one of the two. With exact, for
# people who run it later, no route takes the place of another: the old one goes first.
plan_routes() {
    awk -v family="$1" -v exact="${4-}" '
    function key(line,    words, count, at, destination, rest) {
        count = split(line, words, " ")
        at = words[1] ~ /^[a-z]+$/ && words[1] != "default" ? 2 : 1
        destination = words[at]
        rest = " table 254 metric 0 tos 0"
        for (at++; at < count; at++) {
            if (words[at] == "table") sub(/table [0-9]+/, "table " words[at + 1], rest)
            if (words[at] == "metric") sub(/metric [0-9]+/, "metric " words[at + 1], rest)
            if (words[at] == "tos") sub(/tos .*/, "tos " words[at + 1], rest)
        }
        return destination rest
    }
    function owned(line) { return (line " ") ~ / proto 87 / }
    # Of the routes of a key that stand: whether it is wanted, too.
    function is_wanted(where, line,    i) {
        for (i = 1; i <= wants[where]; i++) if (want[where, i] == line) return 1
        return 0
    }
    function stands(where, line,    i) {
        for (i = 1; i <= has[where]; i++) if (held[where, i] == line) return 1
        return 0
    }
    # Whether what is wanted stands first, and nothing else of hostgw behind it.
    function in_force(where,    i) {
        if (has[where] < wants[where]) return 0
        for (i = 1; i <= has[where]; i++) {
            if (i <= wants[where] ? held[where, i] != want[where, i] : owned(held[where, i])) return 0
        }
        return 1
    }
    function change(where,    i, foreign, own, gone, order, wanted, kept) {
        for (i = 1; i <= has[where]; i++) {
            if (is_wanted(where, held[where, i])) order = order "\n" held[where, i]
            else if (owned(held[where, i])) own++
            else {
                foreign++
                print "! " held[where, i] " stands where hostgw needs " want[where, 1]
            }
        }
        if (foreign) return
        if (family == 6 && exact) {
            for (i = 1; i <= has[where]; i++) {
                if (is_wanted(where, held[where, i])) kept++
                else print "route del " held[where, i]
            }
            for (i = 1; i <= wants[where]; i++) {
                if (!stands(where, want[where, i])) print "route " (kept++ ? "append " : "add ") want[where, i]
            }
            return
        }
        for (i = 1; i <= wants[where]; i++) {
            wanted = wanted "\n" want[where, i]
            if (stands(where, want[where, i])) continue
            if (i == 1 && has[where] == 0) print "route add " want[where, i]
            else if (family == 6) { print "route replace " want[where, i]; gone++ }
            else print "route append " want[where, i]
            order = order "\n" want[where, i]
        }
        for (i = 1; i <= has[where]; i++) {
            if (!is_wanted(where, held[where, i]) && gone-- <= 0) last[++lasts] = "route del " held[where, i]
        }
        if (order == wanted) return
        # The first stays while the others go behind it again, in their order.
        for (i = 2; i <= wants[where]; i++) last[++lasts] = "route del " want[where, i]
        for (i = 2; i <= wants[where]; i++) last[++lasts] = "route append " want[where, i]
    }
    # What a route is for stands behind two spaces; names of interfaces hold none.
    FILENAME == ARGV[1] {
        sub(/  +# .*/, "")
        where = key($0)
        if (!wants[where]++) places[++count] = where
        want[where, wants[where]] = $0
        next
    }
    {
        where = key($0)
        if (!has[where]++) keys[++standing] = where
        held[where, has[where]] = $0
    }
    END {
        for (at = 1; at <= count; at++) if (!in_force(places[at])) change(places[at])
        for (at = 1; at <= standing; at++) {
            where = keys[at]
            gone = 0
            for (i = 1; i <= has[where]; i++)
                if (!wants[where] && owned(held[where, i])) { last[++lasts] = "route del " held[where, i]; gone = 1 }
            # A comment for ip, and what counts the keys that lose all of hostgw.
            if (gone) print "# gone"
        }
        # On-link routes outlive those that rest on them.
        for (at = 1; at <= lasts; at++) if (last[at] ~ / via /) print last[at]
        for (at = 1; at <= lasts; at++) if (last[at] !~ / via /) print last[at]
    }' "$2" "$3"
}

# table_is FAMILY WANTED: whether the table is what the file WANTED says. Where a namespace cannot be made to ask nft,
# what it made of the same file before tells.
table_is() {
    standing=$(nft -s list table "$1" hostgw 2>/dev/null)
    [ -n "$standing" ] || return 1
    [ "$standing" != "$(in_words_of_nft "$1" "$2")" ] || return 0
    [ "$(cat "$state/made.$1" 2>/dev/null)" = "$(cat "$2"; printf '%s' "$standing")" ]
}

# plan_table FAMILY WANTED: a file that makes the table of a family (ip or ip6) what the file WANTED says, as one
# transaction; nothing where it is so already.
plan_table() {
    if [ -s "$2" ]; then
        ! table_is "$1" "$2" || return 0
        printf 'add table %s hostgw\ndelete table %s hostgw\n' "$1" "$1"
        cat "$2"
    elif standing_table "$1" >/dev/null; then
        printf 'delete table %s hostgw\n' "$1"
    fi
}

# The sysctls that have another value, in the order in which they are to be written: switches rewrite those behind them.
plan_sysctls() {
    switched=
    desired_sysctls | while read -r key value; do
        old=$(sysctl -n "$key" | tr '\t' ' ')
        case $key in
        net.ipv4.ip_forward | net.ipv4.conf.all.forwarding) rewritten='net.ipv4.conf.*.forwarding net.ipv4.conf.all.accept_redirects' ;;
        net.ipv6.conf.all.*) rewritten="net.ipv6.conf.*.${key##*.}" ;;
        *) rewritten= ;;
        esac
        is_rewritten=
        set -f
        for pattern in $switched; do
            # shellcheck disable=SC2254 # it is a pattern
            case $key in $pattern) is_rewritten=1 ;; esac
        done
        set +f
        [ "$old" = "$value" ] && [ -z "$is_rewritten" ] && continue
        printf '%s %s\n' "$key" "$value"
        switched="$switched $rewritten"
    done
}

# Makes a plan in the folder $work: routes.4, routes.6, table.ip, table.ip6, sysctls. Each is empty where nothing is
# to be done.
plan() {
    desired_routes | sed -e 's/ scope link/ scope 253/' >"$work/wanted"
    for family in 4 6; do
        is_of_family "$family" <"$work/wanted" >"$work/wanted.$family"
        standing_routes "$family" >"$work/standing.$family" || return 1
        plan_routes "$family" "$work/wanted.$family" "$work/standing.$family" >"$work/routes.$family" || return 1
    done
    for family in ip ip6; do
        "desired_table_$family" >"$work/wanted.$family"
        plan_table "$family" "$work/wanted.$family" >"$work/table.$family" || return 1
    done
    plan_sysctls >"$work/sysctls"
}

# The routes of a family, by their destinations.
is_of_family() {
    if [ "$1" = 6 ]; then grep '^[^ ]*:'; else grep '^[^ :]* '; fi
    return 0
}

conflicts() {
    sed -n 's/^! //p' "$work/routes.4" "$work/routes.6"
}

is_empty() {
    for part in routes.4 routes.6 table.ip table.ip6 sysctls; do
        [ ! -s "$work/$part" ] || return 1
    done
}

show() {
    sed -n -e 's/ scope 253/ scope link/; s/^route add /+ /p; s/^route append /+ /p; s/^route replace /~ /p; s/^route del /- /p; s/^! /! /p' \
        "$work/routes.4" "$work/routes.6"
    for family in ip ip6; do
        [ ! -s "$work/table.$family" ] || say "~ table $family hostgw"
    done
    sed -e 's/^\([^ ]*\) /~ \1 = /' "$work/sysctls"
}

# ---- The transaction

# Carries out what is planned in $work.
commit() {
    for family in ip ip6; do
        [ ! -s "$work/table.$family" ] || nft -f "$work/table.$family" || return 1
        { cat "$work/wanted.$family"; nft -s list table "$family" hostgw 2>/dev/null; } >"$state/made.$family"
        still_wanted || return 1
    done
    for family in 4 6; do
        [ ! -s "$work/routes.$family" ] || ip "-$family" -batch "$work/routes.$family" || return 1
        still_wanted || return 1
    done
    while read -r key value; do
        sysctl -q -w "$key=$value" >/dev/null || return 1
        still_wanted || return 1
    done <"$work/sysctls"
}

# Stops between two steps when a signal came.
still_wanted() {
    [ -z "$signal" ]
}

# Keeps what stands in a folder, so that it can be put back.
keep() {
    mkdir -p "$1" || return 1
    for family in 4 6; do
        grep ' proto 87\( \|$\)' "$work/standing.$family" >"$1/routes.$family"
    done
    for family in ip ip6; do
        standing_table "$family" >"$1/table.$family"
        nft -s list table "$family" hostgw >"$1/stateless.$family" 2>/dev/null
    done
    cp "$work/sysctls" "$1/keys" && standing_sysctls "$1/keys" >"$1/sysctls"
    [ -f "$1/sysctls" ] && [ -f "$1/routes.4" ] && [ -f "$1/routes.6" ]
}

# Puts back what a folder holds, from whatever stands now. What is left is said, as the commands that would do it.
put_back() {
    signal=
    # Twice: a switch that is flipped back rewrites what was right already.
    restore_sysctls "$1"
    restore_sysctls "$1"
    for family in 6 4; do
        standing_routes "$family" >"$work/standing.$family"
        plan_routes "$family" "$1/routes.$family" "$work/standing.$family" >"$work/routes.$family"
        [ ! -s "$work/routes.$family" ] || ip "-$family" -force -batch "$work/routes.$family"
    done
    for family in ip ip6; do
        restore_table "$family" "$1" >"$work/table.$family"
        [ ! -s "$work/table.$family" ] || nft -f "$work/table.$family"
    done
    left=$(
        for family in 6 4; do
            standing_routes "$family" >"$work/standing.$family"
            plan_routes "$family" "$1/routes.$family" "$work/standing.$family" exact | as_commands "ip -$family "
        done
        for family in ip ip6; do
            [ -z "$(restore_table "$family" "$1")" ] || say "# the table $family hostgw, as in $1/table.$family"
        done
        different_sysctls "$1" | as_sysctl_commands
    )
    [ -z "$left" ]
}

# Lines of `ip -batch` as commands for a shell, each word quoted that a shell would read otherwise.
as_commands() {
    awk -v command="$1" '
    function quoted(word,    parts, count, at, text) {
        if (word ~ /^[A-Za-z0-9_@%+=:,.\/-]+$/) return word
        count = split(word, parts, "\047")
        text = parts[1]
        for (at = 2; at <= count; at++) text = text "\047\\\047\047" parts[at]
        return "\047" text "\047"
    }
    /^#/ { next }
    /^!/ { print "#" substr($0, 2); next }
    {
        line = command
        for (at = 1; at <= NF; at++) line = line (at == 1 ? "" : " ") quoted($at)
        print line
    }'
}

# Lines as PATH:VALUE as commands for a shell.
as_sysctl_commands() {
    while IFS= read -r line; do
        line=$(printf '%s' "$line" | sed "s/'/'\\\\''/g")
        say "echo '${line#*:}' >'${line%%:*}'"
    done
}

# What makes a table what it was, with the counters that it had; nothing where it is.
restore_table() {
    if [ -s "$2/table.$1" ]; then
        [ "$(nft -s list table "$1" hostgw 2>/dev/null)" != "$(cat "$2/stateless.$1")" ] || return 0
        printf 'add table %s hostgw\ndelete table %s hostgw\n' "$1" "$1"
        cat "$2/table.$1"
    elif standing_table "$1" >/dev/null; then
        printf 'delete table %s hostgw\n' "$1"
    fi
}

# The sysctls that have another value than they had, as PATH:VALUE: the switches first, which rewrite others.
different_sysctls() {
    standing_sysctls "$1/keys" >"$work/sysctls.now"
    awk '
    FILENAME == ARGV[1] { now[$0] = 1; next }
    !($0 in now) {
        at = index($0, ":")
        path = substr($0, 1, at - 1)
        if (path ~ /\/(ip_forward|all\/[^\/]*)$/) print; else rest[++count] = $0
    }
    END { for (at = 1; at <= count; at++) print rest[at] }' "$work/sysctls.now" "$1/sysctls"
}

restore_sysctls() {
    different_sysctls "$1" >"$work/undo.sysctls"
    while IFS= read -r line; do
        printf '%s\n' "${line#*:}" 2>/dev/null >"${line%%:*}"
    done <"$work/undo.sysctls"
}

# undo FOLDER CODE: puts back what stood before, and ends with CODE, or with 7.
undo() {
    if put_back "$1"; then
        rm -rf "$1"
        say "Rolled back, and verified: the node is as it was before." >&2
        exit "$2"
    fi
    fail "the rollback could not be finished. What is left to do, in this order:"
    printf '%s\n' "$left" | sed 's/^/  /' >&2
    say "Run these commands, or this script with --undo once the cause is gone: it goes on from here." >&2
    exit 7
}

# ---- The command

mode=apply
allowed=
case ${1-} in
'') ;;
--dry-run) mode=show ;;
--undo) mode=undo ;;
--allow-removals)
    allowed=${2-}
    [ -n "$allowed" ] || refuse 64 "--allow-removals takes the number of them"
    shift
    ;;
*) refuse 64 "not known: $1; this script takes --dry-run, --undo, --allow-removals N, or nothing" ;;
esac
[ $# -le 1 ] || refuse 64 "this script takes one option at most"

for tool in ip awk sed grep sysctl; do
    command -v "$tool" >/dev/null || refuse 1 "this machine has no $tool"
done
if [ -n "$(desired_table_ip)$(desired_table_ip6)" ]; then
    command -v nft >/dev/null || refuse 1 "this machine has no nft: install nftables"
fi

base=${HOSTGW_STATE_DIR:-/run/hostgw}
state=$base/script-$(readlink /proc/self/ns/net | tr -cd 0-9)
mkdir -p "$state" 2>/dev/null
[ "$mode" = show ] && [ ! -w "$state" ] && state=${TMPDIR:-/tmp}/hostgw-$$ && mkdir "$state"
if [ ! -d "$state" ] || [ ! -O "$state" ]; then
    refuse 1 "$state is to be a folder of the user who runs this: it is not"
fi
if command -v flock >/dev/null; then
    exec 9>"$state/lock"
    flock -n 9 || refuse 4 "another run holds $state/lock"
fi
work=$state/work
rm -rf "$work"
mkdir "$work" || refuse 1 "cannot write to $state"
signal=
trap 'signal=1' INT TERM HUP
trap 'rm -rf "$work"; case $state in */hostgw-$$) rm -rf "$state" ;; esac' EXIT

if [ -d "$state/open" ] && [ "$mode" != show ]; then
    say "A run was interrupted here, or not undone to its end: undoing it first." >&2
    (undo "$state/open" 0) || exit
    [ "$mode" != undo ] || exit 0
elif [ "$mode" = undo ]; then
    [ -d "$state/last" ] || { say "Nothing to undo: no run is on record here."; exit 0; }
    mv "$state/last" "$state/open" && undo "$state/open" 0
    exit 1
fi

case $device in
*[\#\"\'\\]*) refuse 3 "ip -batch has no words for an interface called $device: hostgw apply has" ;;
esac
ip link show dev "$device" >/dev/null 2>&1 || refuse 3 "this machine has no interface $device: node $node does not fit it"
if [ "$mode" != show ] && [ -z "$(ip -o link show dev "$device" up)" ]; then
    refuse 3 "the interface $device is down: set it up first"
fi
desired_sysctls | while read -r key _; do
    sysctl -n "$key" >/dev/null 2>&1 || { fail "this kernel has no sysctl $key"; exit 3; }
done || exit 3

plan || refuse 1 "the live state could not be read"
if [ -n "$(conflicts)" ]; then
    show
    fail "$(conflicts | wc -l | tr -d ' ') in conflict with what hostgw does not own; nothing was changed. Remove it first."
    exit 10
fi
if is_empty; then
    say "Nothing to do: the node is as the file says."
    exit 0
fi
show
[ "$mode" = apply ] || exit 0
removed=$(cat "$work/routes.4" "$work/routes.6" | grep -c '^# gone')
if [ "$removed" -gt 0 ] && [ "$allowed" != "$removed" ]; then
    has=$(cat "$work/standing.4" "$work/standing.6" | grep -c ' proto 87\( \|$\)')
    if { [ "$removed" -ge 10 ] && [ $((removed * 2)) -gt "$has" ]; } || ! grep -q ' via ' "$work/wanted"; then
        refuse 8 "this plan removes $removed of the $has routes that hostgw has here; nothing was changed. If the file is right, say --allow-removals $removed"
    fi
fi

keep "$state/new" || refuse 1 "cannot keep what stands in $state: nothing was changed"
rm -rf "$state/last"
mv "$state/new" "$state/open" || refuse 1 "cannot write to $state: nothing was changed"
if ! commit; then
    [ -z "$signal" ] || undo "$state/open" 130
    fail "a change failed; see above"
    undo "$state/open" 6
fi
if ! plan || ! is_empty; then
    fail "every change was accepted, and this is not in force:"
    show >&2
    undo "$state/open" 6
fi
mv "$state/open" "$state/last" || undo "$state/open" 6
say "Applied to node $node and verified."
