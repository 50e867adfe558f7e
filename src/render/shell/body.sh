LC_ALL=C
export LC_ALL
umask 077
newline='
'

# ---- Output

# Escapes characters that could control a terminal or hide text, as hostgw does: every hidden character, and every byte
# that is not UTF-8. Keeps line breaks; with `joined`, it escapes them too and prints one line.
escaped() {
    hidden=$hidden awk -v joined="${1-}" '
    BEGIN {
        bounds = split(ENVIRON["hidden"], bound, " ")
        for (i = 1; i < 256; i++) byte[sprintf("%c", i)] = i
    }
    function is_hidden(code,    i) {
        for (i = 1; i < bounds; i += 2) if (code >= bound[i] && code <= bound[i + 1]) return 1
        return 0
    }
    # Sets `size` to the number of bytes of the character at `at`. Returns its code point, or -1 if it is not UTF-8.
    function decoded(line, at,    code, first, i, more) {
        first = byte[substr(line, at, 1)]
        size = 1
        if (first < 128) return first
        if (first < 194 || first > 244) return -1
        more = first < 224 ? 1 : first < 240 ? 2 : 3
        code = first - (more == 1 ? 192 : more == 2 ? 224 : 240)
        for (i = 1; i <= more; i++) {
            first = byte[substr(line, at + i, 1)]
            if (first < 128 || first > 191) return -1
            code = code * 64 + first - 128
        }
        if (more == 2 && (code < 2048 || (code >= 55296 && code <= 57343))) return -1
        if (more == 3 && (code < 65536 || code > 1114111)) return -1
        size = more + 1
        return code
    }
    function shown(line,    at, code, text) {
        if (line !~ /[^ -~]/) return line
        for (at = 1; at <= length(line); at += size) {
            code = decoded(line, at)
            if (code < 0) text = text sprintf("\\x%02x", byte[substr(line, at, 1)])
            else if (code == 9) text = text "\\t"
            else if (code == 13) text = text "\\r"
            else if (is_hidden(code)) text = text sprintf("\\u{%x}", code)
            else text = text substr(line, at, size)
        }
        return text
    }
    !joined { print shown($0); next }
    { text = text (NR > 1 ? "\\n" : "") shown($0) }
    END { if (joined) print text }'
}

# Prints one line. Almost every line is printable ASCII and needs no program to escape it.
say() {
    case $* in
    *[!\ -~]*) printf '%s\n' "$*" | escaped joined ;;
    *) printf '%s\n' "$*" ;;
    esac
}

# Prints the lines of a variable, if there are any.
print_lines() {
    [ -z "$1" ] || printf '%s\n' "$1"
}

fail() {
    say "error: $*" >&2
}

# Runs a command and escapes its messages, which may contain untrusted names.
run() {
    run_into /dev/null "$@"
}

# run_into FILE COMMAND...: same, with the standard output of the command written to FILE.
run_into() {
    into=$1
    shift
    messages=$("$@" 2>&1 >"$into")
    status=$?
    [ -z "$messages" ] || printf '%s\n' "$messages" | escaped >&2
    return "$status"
}

refuse() {
    code=$1
    shift
    fail "$*"
    exit "$code"
}

# ---- Live state

# list_routes FAMILY WANTED: writes the live routes of a family (4 or 6) to $work/listed.FAMILY, with numbers instead of
# names, which may differ from machine to machine. If the file WANTED is empty, foreign routes cannot be in the way: lists
# nothing if there are no managed routes.
list_routes() {
    # Not with `:`, because the shell would end if that failed.
    true >"$work/listed.$1"
    # Without IPv6, the kernel lists the routes of other families.
    [ "$1" = 4 ] || [ -d /proc/sys/net/ipv6 ] || return 0
    if [ ! -s "$2" ]; then
        # ip does not print the protocol of routes that it selects by it, so this list cannot replace the full one.
        run_into "$work/listed.$1" ip -o -N "-$1" route show table all proto 87 || return 1
        [ -s "$work/listed.$1" ] || return 0
    fi
    run_into "$work/listed.$1" ip -o -N "-$1" route show table all
}

# Returns whether a file exists and is empty.
is_blank() {
    [ -e "$1" ] && [ ! -s "$1" ]
}

# Prints a file, which is often empty.
text_of() {
    is_blank "$1" || cat "$1"
}

# The desired table of a family (ip or ip6), if there is one.
print_desired_table() {
    case $1 in
    ip) print_lines "$desired_table_ip" ;;
    *) print_lines "$desired_table_ip6" ;;
    esac
}

# The live managed table of a family with its counters, if there is one.
live_table() {
    nft list table "$1" hostgw 2>/dev/null
}

# Same, without counters but with the handle of each object.
listed_table() {
    nft -a -s list table "$1" hostgw 2>/dev/null
}

# The table in $work/listed.FAMILY without the handles.
listed_without_handles() {
    [ ! -s "$work/listed.$1" ] || sed 's/ # handle [0-9]*$//' "$work/listed.$1"
}

# Returns whether a network namespace can be created to run nft in.
can_run_nft() {
    [ -n "${namespaces-}" ] || if unshare -n true 2>/dev/null; then namespaces=yes; else namespaces=no; fi
    [ "$namespaces" = yes ]
}

# printed_by_nft FAMILY FILE CACHE: sets `printed` to the table of a file in the form that this nft prints, or to nothing.
# Loads it in a temporary network namespace. If that is not possible, reproduces the whitespace of nft. Keeps the result
# in the file CACHE, and takes it from there.
printed_by_nft() {
    [ -s "$2" ] || true >"$3"
    if [ -e "$3" ]; then
        printed=$(text_of "$3")
        return
    fi
    # shellcheck disable=SC2016 # expanded by the inner shell
    if [ "${namespaces-}" != no ] &&
        printed=$(unshare -n sh -c 'nft -f "$1" && nft -s list table "$2" hostgw; exit 0' - "$2" "$1" 2>/dev/null); then
        namespaces=yes
    else
        namespaces=no
        printed=$(awk '{ match($0, /^ */); printf "%s%s\n", substr("\t\t\t\t", 1, int(RLENGTH / 4)), substr($0, RLENGTH + 1) }' "$2")
    fi
    print_lines "$printed" >"$3"
}

# The live values of the sysctls of a plan and of those that the kernel rewrites with them, as PATH:VALUE. The kernel
# prints several numbers separated by tabs, and accepts them separated by spaces.
live_sysctls() {
    ! is_blank "$1" || return 0
    keys=$1
    set --
    {
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
            *)
                path_of "$key"
                set -- "$@" "$path"
                ;;
            esac
        done <"$keys"
        [ $# -eq 0 ] || grep -s -H '' "$@"
    } | tr '\t' ' '
}

# The value of a sysctl by its file, in the same form. The `read` of a shell does not do: it reads byte by byte, and the
# kernel ends some values after the first read.
value_in() {
    tr '\t' ' ' <"$1"
} 2>/dev/null

# Sets `path` to the file of a sysctl. Dots separate the components, and a slash stands for a dot in an interface name.
path_of() {
    rest=$1
    path=/proc/sys/
    while [ -n "$rest" ]; do
        name=${rest%%[./]*}
        rest=${rest#"$name"}
        case $rest in
        .*) path=$path$name/ ;;
        /*) path=$path$name. ;;
        *) path=$path$name ;;
        esac
        rest=${rest#?}
    done
}

# ---- The plan

# plan_routes FAMILY WANTED [MODE]: the `ip -batch` lines that turn the routes in $work/listed.FAMILY into the wanted ones.
# Lines that begin with ! are conflicts with foreign routes. The new route is appended to the old one before the old one is
# deleted. No line replaces a route: `ip route replace` affects whatever route has the same key at that moment, which
# may be foreign. With the mode exact, for commands that a person runs later, the old route is deleted first. With the mode
# record, writes the managed live routes to $work/record/routes.FAMILY.
plan_routes() {
    ! is_blank "$2" || ! is_blank "$work/listed.$1" || return 0
    managed=$work/record/routes.$1 awk -v family="$1" -v mode="${3-}" '
    BEGIN { split("unicast local broadcast anycast multicast blackhole unreachable prohibit throw", type, " ") }
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
    # Returns whether a live route is wanted, too.
    function is_wanted(where, line,    i) {
        for (i = 1; i <= wants[where]; i++) if (want[where, i] == line) return 1
        return 0
    }
    function is_live(where, line,    i) {
        for (i = 1; i <= has[where]; i++) if (held[where, i] == line) return 1
        return 0
    }
    # The word after `name` in a route, or nothing.
    function option(line, name,    words, count, at) {
        count = split(line, words, " ")
        for (at = 1; at < count; at++) if (words[at] == name) return words[at + 1]
        return ""
    }
    function next_hop(line) { return option(line, "via") " " option(line, "dev") }
    # IPv6 looks up the gateway of a new route while the old route still exists. A gateway inside the prefix of the
    # route, such as a pod gateway, would be looked up through the old gateway and rejected. A temporary host route to
    # it avoids that; its metric is not used by anything else.
    function append_beside(line,    gateway, host_route) {
        gateway = option(line, "via")
        if (gateway == "") {
            print "route append " line
            return
        }
        host_route = gateway " dev " option(line, "dev") " proto 87 metric 4294967294"
        if (option(line, "table") != "") host_route = host_route " table " option(line, "table")
        print "route add " host_route
        print "route append " line
        print "route del " host_route
    }
    # IPv6 merges the routes of one key into a multipath route, whose next hops are added and deleted individually.
    # Only two routes with the same next hop cannot coexist: if only an option such as the MTU differs, the old route
    # is deleted first, and there is no route until the next line.
    function change_v6(where,    i, j, remaining, deleted) {
        remaining = has[where]
        for (i = 1; i <= wants[where]; i++) {
            if (is_live(where, want[where, i])) continue
            for (j = 1; j <= has[where]; j++) {
                if (deleted[j] || is_wanted(where, held[where, j]) || next_hop(held[where, j]) != next_hop(want[where, i])) continue
                print "route del " held[where, j]
                deleted[j] = 1
                remaining--
            }
            if (remaining++) append_beside(want[where, i]); else print "route add " want[where, i]
        }
        for (j = 1; j <= has[where]; j++)
            if (!deleted[j] && !is_wanted(where, held[where, j])) last[++lasts] = "route del " held[where, j]
    }
    # Returns whether the wanted routes come first, without other managed routes after them.
    function in_effect(where,    i) {
        if (has[where] < wants[where]) return 0
        for (i = 1; i <= has[where]; i++) {
            if (i <= wants[where] ? held[where, i] != want[where, i] : owned(held[where, i])) return 0
        }
        return 1
    }
    function change(where,    i, foreign, order, wanted, kept) {
        for (i = 1; i <= has[where]; i++) {
            if (is_wanted(where, held[where, i])) order = order "\n" held[where, i]
            else if (!owned(held[where, i])) {
                foreign++
                print "! " held[where, i] " conflicts with " want[where, 1]
            }
        }
        if (foreign) return
        if (family == 6 && mode == "exact") {
            for (i = 1; i <= has[where]; i++) {
                if (is_wanted(where, held[where, i])) kept++
                else print "route del " held[where, i]
            }
            for (i = 1; i <= wants[where]; i++) {
                if (!is_live(where, want[where, i])) print "route " (kept++ ? "append " : "add ") want[where, i]
            }
            return
        }
        if (family == 6) {
            change_v6(where)
            return
        }
        for (i = 1; i <= wants[where]; i++) {
            wanted = wanted "\n" want[where, i]
            if (is_live(where, want[where, i])) continue
            print (i == 1 && has[where] == 0 ? "route add " : "route append ") want[where, i]
            order = order "\n" want[where, i]
        }
        for (i = 1; i <= has[where]; i++) {
            if (!is_wanted(where, held[where, i])) last[++lasts] = "route del " held[where, i]
        }
        if (order == wanted) return
        # The first route stays in place while the others are appended again, in their order.
        for (i = 2; i <= wants[where]; i++) last[++lasts] = "route del " want[where, i]
        for (i = 2; i <= wants[where]; i++) last[++lasts] = "route append " want[where, i]
    }
    function hold(line,    where) {
        where = key(line)
        if (!has[where]++) keys[++key_count] = where
        held[where, has[where]] = line
        if (mode == "record" && owned(line)) print line >ENVIRON["managed"]
    }
    # Two spaces separate a route from its purpose; interface names contain no spaces.
    FILENAME == ARGV[1] {
        sub(/  +# .*/, "")
        where = key($0)
        if (!wants[where]++) places[++count] = where
        want[where, wants[where]] = $0
        next
    }
    # ip -N prints the type of a route as a number.
    /^[2-9] / { $0 = type[$1] substr($0, 2) }
    # hostgw spreads the gateways of a large cluster over scopes up to 199, which have no other effect.
    family == 4 && /^[^ ]+ via .* proto 87 .*scope 1?[0-9]?[0-9]( |$)/ { sub(/ scope [0-9]+/, "") }
    {
        sub(/ pref medium/, "")
        gsub(/ (linkdown|dead|rt_trap)/, "")
        gsub(/\\\t/, " ")
        gsub(/  +/, " ")
        sub(/ +$/, "")
    }
    # IPv6 prints the routes of one key as one multipath route. Here, each is a route of its own, as when it was added.
    family == 6 && / nexthop via / && !/ weight ([02-9]|1[0-9])/ {
        parts = split($0, part, " nexthop ")
        rest = part[1]
        sub(/^[^ ]+/, "", rest)
        for (at = 2; at <= parts; at++) {
            sub(/ *weight 1 *$/, "", part[at])
            hold($1 " " part[at] rest)
        }
        next
    }
    { hold($0) }
    END {
        for (at = 1; at <= count; at++) if (!in_effect(places[at])) change(places[at])
        for (at = 1; at <= key_count; at++) {
            where = keys[at]
            is_removed = 0
            for (i = 1; i <= has[where]; i++)
                if (!wants[where] && owned(held[where, i])) { last[++lasts] = "route del " held[where, i]; is_removed = 1 }
            # A comment for ip, which also marks the keys that lose their managed routes.
            if (is_removed) print "# removed"
        }
        # On-link routes are deleted after the routes that depend on them.
        for (at = 1; at <= lasts; at++) if (last[at] ~ / via /) print last[at]
        for (at = 1; at <= lasts; at++) if (last[at] !~ / via /) print last[at]
    }' "$2" "$work/listed.$1"
}

# is_table FAMILY WANTED PRINTED TEXT: whether TEXT is how nft prints the table in the file WANTED; PRINTED is the cache of
# printed_by_nft. If no namespace can be created to run nft in, compares with what nft printed after an earlier load of the
# same file.
is_table() {
    if [ -z "$4" ] || [ ! -s "$2" ]; then
        [ -z "$4" ] && [ ! -s "$2" ]
        return
    fi
    printed_by_nft "$1" "$2" "$3"
    [ "$4" != "$printed" ] || return 0
    ! can_run_nft && [ "$(cat "$state/made.$1" 2>/dev/null)" = "$(cat "$2"; printf '%s' "$4")" ]
}

# plan_table FAMILY WANTED: a transaction that turns the table of a family (ip or ip6) into the desired one, which is in the
# file WANTED; nothing if it matches. Writes the live table to $work/listed.FAMILY, and without handles to
# $work/record/stateless.FAMILY.
plan_table() {
    listed_table "$1" >"$work/listed.$1"
    now=$(listed_without_handles "$1")
    print_lines "$now" >"$work/record/stateless.$1"
    ! is_table "$1" "$2" "$work/printed.$1" "$now" || return 0
    if [ -n "$now" ]; then
        printed_by_nft "$1" "$2" "$work/printed.$1"
        deletions "$1" "$2" "$work/printed.$1"
    fi
    print_desired_table "$1"
}

# deletions FAMILY WANTED PRINTED: the beginning of a transaction that turns the table in $work/listed.FAMILY into the one in
# the file WANTED, which follows; PRINTED is the same as printed by nft. Deletes each object by its handle, so that the
# kernel rejects the transaction if one of them no longer exists. Keeps the table, and chains whose type, hook and
# priority match: objects that another program adds before the transaction survive, and are found by the verification.
# Deletes the whole table only if it is not wanted any more or has other flags.
deletions() {
    awk -v family="$1" -v is_wanted="$([ ! -s "$2" ] || echo 1)" '
    function is_definition(line) { return line ~ /^\t\t(type [a-z]+ hook |comment ")/ }
    function handle(line) {
        if (!match(line, / # handle [0-9]+$/)) return ""
        return substr(line, RSTART + 10)
    }
    function without_handle(line) {
        sub(/ # handle [0-9]+$/, "", line)
        return line
    }
    {
        wanted = FILENAME == ARGV[1]
        if (!wanted && /^table /) table = handle($0)
    }
    # The first line of a block: its type, which may have two words, and its name.
    /^\t[^\t].* [{]( # handle [0-9]+)?$/ {
        name = without_handle($0)
        sub(/^\t/, "", name)
        sub(/ [{]$/, "", name)
        kind = name
        sub(/ [^ ]*$/, "", kind)
        sub(/^.* /, "", name)
        if (kind == "chain" && wanted) wants[wanted_chains[++wanted_count] = name] = 1
        else if (kind == "chain") {
            chains[++chain_count] = name
            number[name] = handle($0)
        } else if (!wanted && (kind == "set" || kind == "map" || kind == "meter"))
            sets[++set_count] = "delete set " family " hostgw handle " handle($0)
        else if (!wanted) others[++other_count] = "delete " kind " " family " hostgw " name
        next
    }
    # The flags and the comment of the table.
    /^\t[^\t}]/ { if (wanted) wanted_options = wanted_options $0; else live_options = live_options $0 }
    /^\t\t/ && kind == "chain" {
        if (is_definition($0)) { if (wanted) wanted_as[name] = wanted_as[name] $0; else defined_as[name] = defined_as[name] $0 }
        else if (!wanted && handle($0) != "") rules[++rule_count] = "delete rule " family " hostgw " name " handle " handle($0)
    }
    /^\t}/ { kind = "" }
    function print_all(lines, count,    i) { for (i = 1; i <= count; i++) print lines[i] }
    END {
        if (!is_wanted || wanted_options != live_options) {
            print "delete table " family " handle " table
            exit
        }
        print_all(rules, rule_count)
        print_all(sets, set_count)
        for (i = 1; i <= chain_count; i++) {
            name = chains[i]
            stays[name] = wants[name] && wanted_as[name] == defined_as[name]
            if (stays[name] && name != wanted_chains[++stay_count]) is_other_order = 1
        }
        # New chains come after those that are kept.
        for (i = 1; i <= chain_count; i++)
            if (is_other_order || !stays[chains[i]]) print "delete chain " family " hostgw handle " number[chains[i]]
        print_all(others, other_count)
    }' "$3" "$work/listed.$1"
}

# write_table FAMILY: runs $work/table.FAMILY, unless the table has changed since the plan. nft cannot ask the kernel
# to verify that, so a gap of some milliseconds remains between this check and the transaction.
write_table() {
    if [ "$(listed_table "$1")" != "$(text_of "$work/listed.$1")" ]; then
        fail "another program changed the table $1 hostgw; run this script again"
        return 1
    fi
    run nft -f "$work/table.$1"
}

# awk functions that know what the kernel rewrites on its own. Changing IPv4 forwarding rewrites the forwarding of
# every interface, and all/accept_redirects to the opposite; some keys of net.ipv6.conf.all rewrite those of every
# interface. is_switch sets `directory` and `leaf` if a path is such a switch.
switches='
    function is_switch(path) {
        if (path ~ /\/net\/ipv4\/(ip_forward|conf\/all\/forwarding)$/) {
            directory = "/proc/sys/net/ipv4/conf/"
            leaf = "forwarding"
            return 1
        }
        if (path !~ /\/net\/ipv6\/conf\/all\/(addr_gen_mode|disable_ipv6|force_forwarding|forwarding|ignore_routes_with_linkdown)$/) return 0
        directory = "/proc/sys/net/ipv6/conf/"
        leaf = path
        sub(/^.*\//, "", leaf)
        return 1
    }
    # Returns whether two paths are switches of the same setting.
    function is_same_switch(one, other,    group) {
        if (!is_switch(one)) return 0
        group = directory leaf
        return is_switch(other) && directory leaf == group
    }
    function rewrites(switch_path, path,    words, name) {
        if (!is_switch(switch_path) || index(path, directory) != 1) return 0
        name = substr(path, length(directory) + 1)
        if (split(name, words, "/") != 2) return 0
        return (words[2] == leaf && words[1] != "all") || (directory ~ /ipv4/ && name == "all/accept_redirects")
    }
    # The value that the kernel gives a path when its switch gets `value`.
    function value_with(path, value) {
        if (path ~ /\/accept_redirects$/) return value == "0" ? "1" : "0"
        if (path ~ /\/ipv4\/.*\/forwarding$/ && value != "0") return "1"
        return value
    }
    function path_of(line) { return substr(line, 1, index(line, ":") - 1) }
    function value_of(line) { return substr(line, index(line, ":") + 1) }
'

# The sysctls that differ, in the order in which they must be written: a switch rewrites some of those after it.
plan_sysctls() {
    [ -n "$desired_sysctls" ] || return 0
    print_lines "$desired_sysctls" | while read -r key value; do
        path_of "$key"
        printf '%s:%s %s\n' "$path" "$key" "$value"
    done | awk "$switches"'
    {
        path = path_of($0)
        key = value_of($1)
        value = substr($0, length($1) + 2)
        live = ""
        getline live <path
        close(path)
        gsub(/\t/, " ", live)
        is_written_again = 0
        for (at = 1; at <= count; at++)
            if (rewrites(switched[at], path) || is_same_switch(switched[at], path)) is_written_again = 1
        if (live == value && !is_written_again) next
        print key " " value
        switched[++count] = path
    }'
}

# The desired routes, adapted to the links of this node as the key `offLink` of the configuration asks. The kernel knows which
# addresses are on the link of the egress interface. For a pod gateway, the address of its node decides.
adapted_routes() {
    : >"$work/skipped" || return 1
    if [ "$off_link" = refuse ]; then
        print_lines "$desired_routes"
        return
    fi
    print_lines "$desired_routes" >"$work/desired" || return 1
    print_lines "$pod_gateway_routes" >"$work/nodes" || return 1
    awk -v asked="$work/asked." '
        FILENAME ~ /nodes$/ { address[$1] = $2; next }
        $2 == "via" {
            needed = ($1 in address) ? address[$1] : $3
            if (needed != "-" && !(needed in seen)) print "route get " needed >(asked (needed ~ /:/ ? 6 : 4))
            seen[needed]
        }' "$work/nodes" "$work/desired" || return 1
    : >"$work/answers"
    for family in 4 6; do
        # Without a route to an address, there is no answer.
        [ ! -f "$work/asked.$family" ] || ip -o "-$family" -force -batch "$work/asked.$family" 2>/dev/null
    done >"$work/answers"
    device=$device awk -v off_link="$off_link" -v skipped="$work/skipped" '
        function option(name,    at) {
            for (at = 1; at < NF; at++) if ($at == name) return $(at + 1)
            return ""
        }
        FILENAME ~ /nodes$/ { address[$1] = $2; next }
        FILENAME ~ /answers$/ {
            if ($1 == "local") on_link[$2]
            else if (option("dev") == ENVIRON["device"]) {
                if (option("via") == "") on_link[$1]
                else gateway[$1] = option("via")
            }
            next
        }
        {
            needed = ($1 in address) ? address[$1] : $3
            if ($2 != "via" || needed == "-" || (needed in on_link)) { print; next }
            if (off_link == "skip") { print $1 >skipped; next }
            if (off_link == "gateway" && (needed in gateway)) sub(/ via [^ ]+/, " via " gateway[needed])
            if (off_link == "onlink" && !($1 in address)) {
                at = index($0, "  #")
                route = substr($0, 1, at - 1)
                sub(/ +$/, "", route)
                if (!sub(/ mtu /, " onlink mtu ", route)) route = route " onlink"
                $0 = route substr($0, at)
            }
            print
        }' "$work/nodes" "$work/answers" "$work/desired"
}

# Writes the routes of the configuration to $work/wanted.4 and $work/wanted.6, in the form in which ip prints them.
want_routes() {
    : >"$work/wanted.4" && : >"$work/wanted.6" || return 1
    adapted_routes >"$work/adapted" || return 1
    named=$named device=$device awk -v wanted="$work/wanted." '
        BEGIN { from = " dev " ENVIRON["named"] " "; to = " dev " ENVIRON["device"] " " }
        {
            sub(/ scope link/, " scope 253")
            at = index($0, from)
            if (at) $0 = substr($0, 1, at - 1) to substr($0, at + length(from))
            print >(wanted ($1 $2 ~ /:/ ? 6 : 4))
        }' "$work/adapted"
}

# Writes a plan to the directory $work: routes.4, routes.6, table.ip, table.ip6, and record/keys for the sysctls. Each file is
# empty if nothing has to change. $work/record contains what a record of a run contains of its plan.
plan() {
    # Only with offLink do the wanted routes depend on the live state.
    [ "$off_link" = refuse ] && [ -e "$work/adapted" ] || want_routes || return 1
    for family in 4 6; do
        list_routes "$family" "$work/wanted.$family" || return 1
        : >"$work/record/routes.$family" || return 1
        plan_routes "$family" "$work/wanted.$family" record >"$work/routes.$family" || return 1
    done
    for family in ip ip6; do
        print_desired_table "$family" >"$work/record/wanted.$family"
        plan_table "$family" "$work/record/wanted.$family" >"$work/table.$family" || return 1
    done
    plan_sysctls >"$work/record/keys"
}

# Sets `conflicts` and `removed` to the number of conflicts with foreign routes, and of keys that lose their managed routes.
count_routes() {
    conflicts=0
    removed=0
    [ -s "$work/routes.4" ] || [ -s "$work/routes.6" ] || return 0
    removed=$(awk '/^! / { conflicts++ } /^# removed/ { removed++ } END { print conflicts + 0, removed + 0 }' \
        "$work/routes.4" "$work/routes.6")
    conflicts=${removed% *}
    removed=${removed#* }
}

is_empty() {
    for part in routes.4 routes.6 table.ip table.ip6 record/keys; do
        [ ! -s "$work/$part" ] || return 1
    done
}

show() {
    changes=$(
        if [ -s "$work/routes.4" ] || [ -s "$work/routes.6" ]; then
            sed -n -e '/ metric 4294967294\( \|$\)/d; s/ scope 253/ scope link/; s/^route add /+ /p; s/^route append /+ /p
                s/^route del /- /p; s/^! /! /p' "$work/routes.4" "$work/routes.6"
        fi
        for family in ip ip6; do
            [ -s "$work/table.$family" ] || continue
            sign='~'
            [ -s "$work/listed.$family" ] || sign=+
            [ -s "$work/record/wanted.$family" ] || sign=-
            printf '%s table %s hostgw\n' "$sign" "$family"
        done
        while read -r key value; do
            printf '~ %s = %s\n' "$key" "$value"
        done <"$work/record/keys"
    )
    # As in `say`.
    case $changes in
    *[!\ -~$newline]*) print_lines "$changes" | escaped ;;
    *) print_lines "$changes" ;;
    esac
}

# ---- The transaction

# Carries out the plan in $work.
commit() {
    for family in ip ip6; do
        if [ -s "$work/table.$family" ]; then
            : >"$state/open/wrote.$family" || return 1
            write_table "$family" || {
                rm -f "$state/open/wrote.$family"
                return 1
            }
            { print_desired_table "$family"; nft -s list table "$family" hostgw 2>/dev/null; } >"$state/made.$family"
        fi
        is_uninterrupted || return 1
    done
    for family in 4 6; do
        [ ! -s "$work/routes.$family" ] || run ip "-$family" -batch "$work/routes.$family" || return 1
        is_uninterrupted || return 1
    done
    while read -r key value; do
        write_sysctl "$key" "$value" || return 1
        is_uninterrupted || return 1
    done <"$work/record/keys"
}

# Writes a sysctl. If the kernel stores another value than requested, restores the previous one immediately, because
# the stored value would look foreign.
write_sysctl() {
    path_of "$1"
    ! run store "$path" "$2" || [ "$(value_in "$path")" != "$2" ] || return 0
    fail "cannot set $1 = $2: the kernel stored $(value_in "$path") instead"
    while IFS= read -r line; do
        [ "${line%%:*}" != "$path" ] || store "$path" "${line#*:}" 2>/dev/null
    done <"$state/open/sysctls"
    return 1
}

# store FILE VALUE: writes a value to the file of a sysctl.
store() {
    printf '%s\n' "$2" >"$1"
}

# Fails after a signal, to stop between two steps.
is_uninterrupted() {
    [ -z "$signal" ]
}

# Saves to a directory the live state and the values that will be written, to restore the former and to tell foreign
# values.
save_state() {
    [ ! -e "$1" ] || rm -rf "$1"
    cp -R "$work/record" "$1" || return 1
    for family in ip ip6; do
        : >"$1/table.$family"
        [ ! -s "$work/listed.$family" ] || live_table "$family" >"$1/table.$family"
    done
    live_sysctls "$1/keys" >"$1/sysctls" && written_sysctls "$1" >"$1/written"
    [ -f "$1/written" ] && [ -f "$1/routes.4" ] && [ -f "$1/routes.6" ]
}

# The values that a run will leave for everything recorded in a directory, as PATH:VALUE.
written_sysctls() {
    ! is_blank "$1/keys" || return 0
    while read -r key value; do
        path_of "$key"
        printf '%s:%s\n' "$path" "$value"
    done <"$1/keys" >"$work/writes"
    awk "$switches"'
    {
        path = path_of($0)
        value = value_of($0)
    }
    FILENAME == ARGV[1] { written[path] = value; next }
    written[path] != value && is_switch(path) {
        for (other in written) {
            if (rewrites(path, other)) written[other] = value_with(other, value)
            else if (is_same_switch(path, other)) written[other] = value
        }
    }
    { written[path] = value }
    END { for (path in written) print path ":" written[path] }' "$1/sysctls" "$work/writes"
}

# Writes the values to restore for the sysctls of a directory to $work/targets, as PATH:VALUE. These are the previous
# values, except for foreign ones, which are neither the previous value nor the one that the run wrote. Foreign values
# are kept, and recorded in the directory, because restoring a switch can rewrite them. An interface that was created
# later also keeps a value that contradicts the switch. Writes the live values to $work/sysctls.now and the conflicts to
# $work/foreign.
plan_restoration() {
    live_sysctls "$1/keys" >"$work/sysctls.now"
    [ -f "$1/foreign" ] || : >"$1/foreign"
    true >"$work/kept" && true >"$work/conflicts" || return 1
    folder=$work awk -v is_verified="$([ ! -e "$1/verified" ] || echo 1)" "$switches"'
    {
        path = path_of($0)
        value = value_of($0)
    }
    FILENAME == ARGV[1] { before[path] = value; next }
    FILENAME == ARGV[2] { written[path] = value; next }
    FILENAME == ARGV[3] { known[path] = value; next }
    { now[path] = value }
    function key_of(path,    key, at, letter) {
        for (at = length("/proc/sys/") + 1; at <= length(path); at++) {
            letter = substr(path, at, 1)
            key = key (letter == "/" ? "." : letter == "." ? "/" : letter)
        }
        return key
    }
    # Returns whether the kernel set a value when its switch got the current value; the write that follows may still be
    # missing. In a verified run, no write is missing, except by an interrupted undo.
    function is_rewritten(path,    other, is_back, is_written) {
        for (other in written) {
            if (!(other in now) || !rewrites(other, path) || now[path] != value_with(path, now[other])) continue
            is_back = now[other] == before[other]
            is_written = now[other] == written[other]
            if (is_verified ? is_back && !is_written : is_back || is_written) return 1
        }
        return 0
    }
    END {
        for (path in before) {
            # A key that no longer exists has nothing to restore.
            if (!(path in now)) continue
            target[path] = before[path]
            if (path in known && (now[path] == known[path] || is_rewritten(path))) target[path] = known[path]
            else if (now[path] != before[path] && now[path] != written[path] && !is_rewritten(path)) target[path] = now[path]
            if (target[path] == before[path]) continue
            print path ":" target[path] >(ENVIRON["folder"] "/kept")
            print "# " key_of(path) " = " target[path] " was set by another program: hostgw had set " written[path] \
                "; the original value is " before[path] >(ENVIRON["folder"] "/conflicts")
        }
        for (path in now) {
            if (path in before) continue
            for (other in before)
                if (rewrites(other, path) && (other in now) && target[other] != now[other] && now[path] != value_with(path, now[other]))
                    target[path] = now[path]
        }
        for (path in target) print path ":" target[path]
    }' "$1/sysctls" "$1/written" "$1/foreign" "$work/sysctls.now" >"$work/targets" || return 1
    if [ -s "$work/kept" ] || [ -s "$1/foreign" ]; then mv "$work/kept" "$1/foreign" || return 1; fi
    true >"$work/foreign"
    [ ! -s "$work/conflicts" ] || sort "$work/conflicts" >"$work/foreign"
}

# Restores the state that a directory records, from any live state. Sets $left to the commands that would complete it, and
# $foreign to the foreign changes, which stay.
restore_state() {
    signal=
    for family in ip ip6; do
        [ ! -e "$work/undone.$family" ] || rm -f "$work/undone.$family"
    done
    left="# the sysctl values in the record $1 cannot be compared with the live ones; inspect it"
    plan_restoration "$1" || return 1
    # Again after a change, because restoring a switch rewrites values that were already right.
    if restore_sysctls; then
        live_sysctls "$1/keys" >"$work/sysctls.now"
        restore_sysctls
    fi
    for family in 6 4; do
        list_routes "$family" "$1/routes.$family" || true >"$work/listed.$family"
        plan_routes "$family" "$1/routes.$family" >"$work/routes.$family"
        [ ! -s "$work/routes.$family" ] || run ip "-$family" -force -batch "$work/routes.$family"
    done
    for family in ip ip6; do
        restore_table "$family" "$1" >"$work/table.$family"
        [ ! -s "$work/table.$family" ] || write_table "$family"
    done
    left=$(
        for family in 6 4; do
            list_routes "$family" "$1/routes.$family" || true >"$work/listed.$family"
            lines=$(plan_routes "$family" "$1/routes.$family" exact)
            [ -z "$lines" ] || printf '%s\n' "$lines" | as_commands "ip -$family "
        done
        for family in ip ip6; do
            if [ -n "$(restore_table "$family" "$1")" ]; then
                say "# nft refused it; restore the table $family hostgw manually from $1/table.$family"
            elif is_foreign_table "$family" "$1"; then
                say "#! another program changed the table $family hostgw; its state before this script is in $1/table.$family"
            fi
        done
        live_sysctls "$1/keys" >"$work/sysctls.now"
        lines=$(different_sysctls)
        [ -z "$lines" ] || printf '%s\n' "$lines" | as_sysctl_commands
        [ ! -s "$work/foreign" ] || sed 's/^#/#!/' "$work/foreign"
    )
    foreign=
    [ -n "$left" ] || return 0
    foreign=$(printf '%s\n' "$left" | sed -n 's/^#!/#/p')
    left=$(printf '%s\n' "$left" | sed '/^#!/d')
    [ -z "$left$foreign" ]
}

# Turns lines of `ip -batch` into shell commands, quoting words where necessary.
as_commands() {
    awk -v command="$1" '
    '"$quoting"'
    /^#/ { next }
    /^!/ { print "#" $0; next }
    {
        line = command
        for (at = 1; at <= NF; at++) line = line (at == 1 ? "" : " ") quoted($at)
        print line
    }'
}

# awk function that quotes a word for a shell. Control characters become escapes of printf.
# shellcheck disable=SC2016 # expanded by awk
quoting='
    BEGIN { for (i = 1; i < 256; i++) byte[sprintf("%c", i)] = i }
    function quoted(word,    parts, count, at, text) {
        if (word ~ /^[A-Za-z0-9_@%+=:,.\/-]+$/) return word
        if (word ~ /[^ -~]/) {
            for (at = 1; at <= length(word); at++) text = text sprintf("\\0%03o", byte[substr(word, at, 1)])
            return "\"$(printf %b \047" text "\047)\""
        }
        count = split(word, parts, "\047")
        text = parts[1]
        for (at = 2; at <= count; at++) text = text "\047\\\047\047" parts[at]
        return "\047" text "\047"
    }
'

# Turns lines PATH:VALUE into shell commands.
as_sysctl_commands() {
    awk "$quoting"'
    {
        at = index($0, ":")
        print "echo " quoted(substr($0, at + 1)) " >" quoted(substr($0, 1, at - 1))
    }'
}

# restore_table FAMILY DIR: the transaction that restores a table with its counters; nothing if it matches, if the
# run did not write it, or if another program has changed it since.
restore_table() {
    [ -e "$2/wrote.$1" ] || return 0
    listed_table "$1" >"$work/listed.$1"
    now=$(listed_without_handles "$1")
    [ "$now" != "$(text_of "$2/stateless.$1")" ] || return 0
    is_table "$1" "$2/wanted.$1" "$work/undone.$1" "$now" || return 0
    [ -z "$now" ] || deletions "$1" "$2/table.$1" "$2/stateless.$1"
    text_of "$2/table.$1"
}

# Returns whether a table that the run wrote is neither the previous one nor the one that the run created.
is_foreign_table() {
    [ -e "$2/wrote.$1" ] || return 1
    now=$(listed_without_handles "$1")
    [ "$now" != "$(text_of "$2/stateless.$1")" ] && ! is_table "$1" "$2/wanted.$1" "$work/undone.$1" "$now"
}

# The sysctls of $work/targets that differ from $work/sysctls.now, as PATH:VALUE. Switches come first, because they rewrite
# others.
different_sysctls() {
    [ -s "$work/targets" ] || return 0
    awk '
    FILENAME == ARGV[1] { now[$0] = 1; next }
    !($0 in now) {
        at = index($0, ":")
        path = substr($0, 1, at - 1)
        if (path ~ /\/(ip_forward|all\/[^\/]*)$/) print; else rest[++count] = $0
    }
    END { for (at = 1; at <= count; at++) print rest[at] }' "$work/sysctls.now" "$work/targets"
}

# Writes the sysctls that differ. Returns whether there are any.
restore_sysctls() {
    different_sysctls >"$work/undo.sysctls"
    [ -s "$work/undo.sysctls" ] || return 1
    while IFS= read -r line; do
        store "${line%%:*}" "${line#*:}" 2>/dev/null
    done <"$work/undo.sysctls"
    return 0
}

# undo DIR CODE: restores the previous state and exits with CODE, or with 7.
undo() {
    [ -f "$1/written" ] || refuse 1 "the record $1 is damaged, or was written by another version of this script; check its contents, then move it aside"
    left=
    foreign=
    if restore_state "$1"; then
        rm -rf "$1"
        say "Rolled back and verified: the node is in its previous state." >&2
        exit "$2"
    fi
    if [ -n "$abandon" ] && [ -z "$left" ]; then
        rm -rf "$1"
        say "Rolled back and verified, except for foreign changes:" >&2
        printf '%s\n' "$foreign" | sed 's/^#/ /' | escaped >&2
        exit "$2"
    fi
    fail "the rollback is incomplete. Remaining commands, in this order:"
    printf '%s\n' "$left" "$foreign" | sed -n 's/^./  &/p' | escaped >&2
    say "help: fix the cause, or run these commands; then run this script with --undo to finish" >&2
    [ -z "$foreign" ] || say "help: to keep the foreign changes, run this script with --undo --abandon" >&2
    exit 7
}

# ---- The command

mode=apply
allowed=
abandon=
case ${1-} in
'') ;;
--dry-run) mode=show ;;
--undo)
    mode=undo
    if [ "${2-}" = --abandon ]; then
        abandon=1
        shift
    fi
    ;;
--allow-removals)
    allowed=${2-}
    [ -n "$allowed" ] || refuse 64 "--allow-removals requires the number of removals"
    shift
    ;;
*) refuse 64 "unknown option: $1; this script accepts --dry-run, --undo, --undo --abandon, --allow-removals N, or no option" ;;
esac
[ $# -le 1 ] || refuse 64 "this script accepts at most one option"

for tool in ip awk sed grep; do
    command -v "$tool" >/dev/null || refuse 1 "$tool is not installed"
done
if [ -n "$desired_table_ip$desired_table_ip6" ]; then
    command -v nft >/dev/null || refuse 1 "nft is not installed; install nftables"
fi

base=${HOSTGW_STATE_DIR:-/run/hostgw}
# The link is net:[NUMBER].
state=$(readlink /proc/self/ns/net)
state=${state#*\[}
state=$base/script-${state%\]}
[ -d "$state" ] || mkdir -p "$state" 2>/dev/null
[ "$mode" = show ] && [ ! -w "$state" ] && state=${TMPDIR:-/tmp}/hostgw-$$ && mkdir "$state"
if [ ! -d "$state" ] || [ ! -O "$state" ]; then
    refuse 1 "$state is not a directory owned by the current user"
fi
if command -v flock >/dev/null; then
    exec 9>"$state/lock"
    flock -n 9 || refuse 4 "another run holds $state/lock; wait for it to finish, then run this script again"
fi
work=$state/work
[ ! -e "$work" ] || rm -rf "$work"
mkdir "$work" "$work/record" || refuse 1 "cannot write to $state"
signal=
trap 'signal=1' INT TERM HUP
trap 'rm -rf "$work"; case $state in */hostgw-$$) rm -rf "$state" ;; esac' EXIT

if [ -d "$state/open" ] && [ "$mode" != show ]; then
    say "A previous run was interrupted, or its rollback is incomplete: rolling it back first." >&2
    (undo "$state/open" 0) || exit
    [ "$mode" != undo ] || exit 0
elif [ "$mode" = undo ]; then
    [ -d "$state/last" ] || { say "Nothing to undo: there is no record of a run on this node."; exit 0; }
    mv "$state/last" "$state/open" && undo "$state/open" 0
    exit 1
fi

# The routes contain the name from the configuration, or @ if the interface is found by the addresses of the node.
named=${device:-@}
if [ -z "$device" ]; then
    device=$(for address in $addresses; do ip -o address show to "$address"; done | awk '{ print $2 }' | sort -u)
    case $device in
    '') refuse 3 "no interface has an address of node $node ($addresses); is this the right machine?" ;;
    lo) refuse 3 "$addresses is assigned to lo: set egressInterface for node $node in the configuration" ;;
    *[[:space:]]*) refuse 3 "several interfaces have addresses of node $node ($addresses); set its egressInterface in the configuration" ;;
    esac
fi
case $device in
*[\#\"\'\\]*) refuse 3 "ip -batch cannot name the interface $device; use hostgw apply instead" ;;
esac
link=$(ip -o link show dev "$device" 2>/dev/null) || refuse 3 "this machine has no interface $device; is it node $node?"
# A line such as `2: eth0@if3: <BROADCAST,UP> mtu 1500 qdisc noqueue master br0 state UP \    link/ether ...`. Names contain
# neither spaces nor colons. An alternative name leads to the name that ip prints in routes.
device=${link#*: }
device=${device%%: *}
device=${device%%@*}
flags=${link#*: *: <}
flags=${flags%%>*}
master=${link%%\\ *}
case $master in
*" master "*)
    master=${master#* master }
    master=${master%% *}
    ;;
*) master= ;;
esac
if [ -n "$master" ] && [ -z "$(ip -o link show dev "$master" type vrf 2>/dev/null)" ]; then
    refuse 3 "the interface $device is a port of $master, which receives its packets; set egressInterface to $master"
fi
case $mode,$flags, in
show,* | *,UP,*) ;;
*) refuse 3 "the interface $device is down; bring it up first: \`ip link set $device up\`" ;;
esac
# The kernel rejects another machine's address as the source of routes, and replies to it would not arrive here.
case $desired_routes$desired_table_ip$desired_table_ip6 in
*" src "* | *" snat to "*)
    sources=$(printf '%s\n' "$desired_routes" "$desired_table_ip" "$desired_table_ip6" |
        sed -n -e 's/.* src \([^ ]*\).*/\1/p' -e 's/.* snat to \([^ ]*\).*/\1/p' | sort -u)
    ;;
*) sources= ;;
esac
for source in $sources; do
    [ -n "$(ip -o address show to "$source")" ] ||
        refuse 3 "no interface has $source, the source address of node $node; is this the right machine?"
    [ -n "$(ip -o address show -tentative to "$source")" ] ||
        refuse 3 "the kernel does not use $source, the source address of node $node: duplicate address detection has not finished, or another machine has it"
done
print_lines "$desired_sysctls" | while read -r key _; do
    path_of "$key"
    [ -e "$path" ] || { fail "this kernel has no sysctl $key"; exit 3; }
done || exit 3

plan || refuse 1 "cannot read the live state; nothing was changed"
if [ -s "$work/skipped" ]; then
    case $(wc -l <"$work/skipped" | tr -d ' ') in
    1) say "note: no route to 1 pod CIDR, because its next hop is on another link (offLink: skip)" ;;
    *) say "note: no route to $(wc -l <"$work/skipped" | tr -d ' ') pod CIDRs, because their next hops are on other links (offLink: skip)" ;;
    esac
fi
count_routes
if [ "$conflicts" -gt 0 ]; then
    show
    case $conflicts in
    1) number="1 conflict with an object" objects=object them=it ;;
    *) number="$conflicts conflicts with objects" objects=objects them=them ;;
    esac
    fail "$number that hostgw does not manage; nothing was changed"
    say "  help: remove the foreign $objects, then run this script again; or take $them over with \`hostgw apply --adopt\`" >&2
    exit 10
fi
if is_empty; then
    say "No changes. This node matches the configuration."
    exit 0
fi
show
[ "$mode" = apply ] || exit 0
if [ "$removed" -gt 0 ] && [ "$allowed" != "$removed" ]; then
    has=$(cat "$work/record/routes.4" "$work/record/routes.6" | grep -c '')
    if { [ "$removed" -ge 10 ] && [ $((removed * 2)) -gt "$has" ]; } || ! grep -q ' via ' "$work/wanted.4" "$work/wanted.6"; then
        left=
        grep -q ' via ' "$work/wanted.4" "$work/wanted.6" || left="; this node would have no routes to other nodes"
        case $has in
        1) number="the only managed route" ;;
        *) number="$removed of the $has managed routes" ;;
        esac
        refuse 8 "this plan removes $number$left; nothing was changed. If that is intended, run this script with --allow-removals $removed"
    fi
fi

save_state "$state/new" || refuse 1 "cannot save the live state in $state; nothing was changed"
[ ! -e "$state/last" ] || rm -rf "$state/last"
mv "$state/new" "$state/open" || refuse 1 "cannot write to $state; nothing was changed"
if ! commit; then
    [ -z "$signal" ] || undo "$state/open" 130
    fail "a change failed; see the message above"
    undo "$state/open" 6
fi
if ! plan || ! is_empty; then
    fail "all commands succeeded, but these changes did not take effect:"
    show >&2
    undo "$state/open" 6
fi
: >"$state/open/verified"
mv "$state/open" "$state/last" || undo "$state/open" 6
say "Applied to node $node and verified."
