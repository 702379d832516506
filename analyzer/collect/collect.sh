#!/bin/sh
# Collects what ptaudit audits from an arm64 Linux host: reads only, and writes nothing but its own output.
# Needs a POSIX shell and the usual small tools; busybox is enough. See -h.

usage() {
    cat <<'EOF'
usage: sh collect.sh [-n] [-r] [-t SECONDS] [-m MIB] [-o OUT]
  -o OUT      OUT.tar.gz, or a directory if OUT ends in / (default: ptaudit-HOST-TIME.tar.gz here)
  -n          say what would be read, and read nothing
  -r          redact: no host name, no MAC address, no serial number
  -t SECONDS  give up on one read after this time (default 60)
  -m MIB      take no more than this of one file (default 256)
Run as root: without it, page tables are missing and /proc/iomem has no addresses.
What is taken describes memory and the kernel: page-table layout, physical memory map, memory
blocks, zones, huge pages, kernel configuration and command line, kernel log, CPU features, memory
hotplug trace, persistent-memory namespaces. No content of memory, no process, no file of yours.
The script for Python (ptaudit collect --print-script=python) also takes page tables from /proc/kcore.
Kernel addresses and host name are in it; -r leaves out the host name, the audit needs the addresses.
EOF
}

out='' dry='' redact='' limit=60 mebibytes=256 running=''
while getopts 'nrt:m:o:h' option; do
    case $option in
        n) dry=1 ;;
        r) redact=1 ;;
        t) limit=$OPTARG ;;
        m) mebibytes=$OPTARG ;;
        o) out=$OPTARG ;;
        h) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done
shift $((OPTIND - 1))
for number in "$limit" "$mebibytes"; do
    case $#$number in
        [!0]* | 0 | 00* | *[!0-9]*) usage >&2; exit 2 ;;
    esac
done

umask 077

# Of the PATH only folders that no other user can write to: absolute, ours or root's, not open to all.
safe_path() {
    safe='' IFS=:
    for folder in ${PATH:-}; do
        case $folder in /*) ;; *) continue ;; esac
        case $(ls -ldnL "$folder" 2>/dev/null) in
            d???????w*) ;;
            d*) if [ -O "$folder" ] || [ -z "$(find -H "$folder" -prune ! -user 0 2>/dev/null)" ]; then safe=$safe$folder:; fi ;;
        esac
    done
    unset IFS
    printf '%s/usr/sbin:/usr/bin:/sbin:/bin\n' "$safe"
}
export LC_ALL=C PATH="$(safe_path)"
memory=/sys/devices/system/memory
debug=/sys/kernel/debug
tracing=/sys/kernel/tracing
[ -e $tracing/trace ] || tracing=$debug/tracing
if sleep 0.01 2>/dev/null; then nap=0.05; else nap=1; fi

say() { printf '%s\n' "$*" >&2; }

# What is read. Each function writes one file of the bundle to its standard output.

blocks() {
    cd $memory || return 1
    for attribute in block_size_bytes auto_online_blocks memory[0-9]*/state memory[0-9]*/valid_zones \
        memory[0-9]*/removable memory[0-9]*/phys_index memory[0-9]*/phys_device; do
        if read -r value 2>/dev/null <"$attribute"; then printf '%s:%s\n' "$attribute" "$value"; fi
    done
}

nodes() {
    cd $memory || return 1
    for link in memory[0-9]*/node[0-9]*; do
        [ -e "$link" ] && printf '%s\n' "$link"
    done
}

hugepages() {
    for attribute in /sys/kernel/mm/hugepages/*/* /proc/sys/vm/hugetlb_optimize_vmemmap; do
        if [ -r "$attribute" ] && read -r value <"$attribute"; then printf '%s:%s\n' "$attribute" "$value"; fi
    done
}

config() {
    if [ -r /proc/config.gz ]; then
        gzip -dc </proc/config.gz
    else
        cat "/boot/config-$(uname -r)"
    fi
}

# The ring buffer may have lost the start of the boot; the journal has it.
kernel_log() {
    if dmesg | grep -q 'Booting Linux on physical CPU' || ! command -v journalctl >/dev/null; then
        dmesg
    else
        journalctl -k -b --no-pager -o short-monotonic
    fi
}

# The number of eight bytes at offset $1 of /proc/kcore, least significant byte first.
number_at() {
    value=0 shift=0
    for byte in $(dd if=/proc/kcore bs=8 skip=$(($1 / 8)) count=1 2>/dev/null | od -An -v -tu1); do
        value=$((value + (byte << shift)))
        shift=$((shift + 8))
    done
    printf '%s\n' $value
}

# The notes of /proc/kcore hold VMCOREINFO, as a crash dump's do. The first program header, at 64, describes
# the notes: their offset lies at byte 8 of it, their size at byte 32. Nothing after them is read.
vmcoreinfo() {
    offset=$(number_at 72) size=$(number_at 96)
    if [ "$offset" -lt 64 ] || [ "$size" -lt 1 ] || [ "$size" -gt 1048576 ]; then
        echo "/proc/kcore has no notes" >&2
        return 1
    fi
    dd if=/proc/kcore bs=1 skip="$offset" count="$size" 2>/dev/null | tr -c ' -~\n' '\n' |
        grep -E '^(OSRELEASE|BUILD-ID|PAGESIZE|KERNELOFFSET|(SYMBOL|SIZE|OFFSET|LENGTH|NUMBER)\([A-Za-z0-9_.]+\))='
}

# Files of tracefs have no size: only reading shows what they hold. `ptaudit probes` traces in its own instance. Fprobes are in
# dynamic_events only, with kprobes and the other probes; before 5.0 there is kprobe_events alone.
is_tracing() {
    [ -e $tracing/instances/mhp/trace ] && return 0
    [ -n "$(cat $tracing/dynamic_events $tracing/kprobe_events $tracing/set_event 2>/dev/null)" ] && return 0
    case $(cat $tracing/current_tracer 2>/dev/null) in '' | nop) return 1 ;; esac
}

hotplug_trace() {
    if [ -e $tracing/instances/mhp/trace ]; then cat $tracing/instances/mhp/trace; else cat $tracing/trace; fi
}

cpu() { grep -E '^(CPU |Features)' /proc/cpuinfo | sort | uniq -c; }

#@ITEMS@

# Calls "$1 NAME ROOT WHAT COMMAND" for every line of $2; what does not exist here is left out. In the background, for
# a shell acts on a signal while it waits, and not before a command that it runs has ended.
each() {
    printf '%s\n' "$2" | {
        reader=''
        trap '[ -z "$reader" ] || kill "$reader" 2>/dev/null; exit 2' TERM
        while IFS=';' read -r name root what command only_if; do
            [ -z "$only_if" ] || eval "$only_if" || continue
            $1 "$name" "$root" "$what" "$command" </dev/null
        done
    } &
    running=$!
    wait "$running"
    running=''
}

announce() { printf '  %-19s %-32s %s%s\n' "$1" "$3" "$4" "$([ "$2" = root ] && echo '   (root)')"; }

# Seconds since the boot, without the fraction.
# Seconds since the boot; 0 where /proc shows processes only, as in some containers.
uptime_seconds() {
    seconds=0
    [ ! -r /proc/uptime ] || read -r seconds _ </proc/uptime
    printf '%s\n' "${seconds%%.*}"
}

# Runs a command into the file $1, at most $limit seconds and $mebibytes MiB. What is cut gets the name $1.partial,
# so that it is not taken for the whole. A read that hangs in the kernel is left behind.
take() {
    name=$1 command=$4 began=$(uptime_seconds) naps=0
    rm -f "$work/.status"
    (
        $command 2>"$work/.error" | head -c $((mebibytes * 1048576)) >"$work/$name"
        echo ended >"$work/.status"
    ) &
    reader=$!
    while [ ! -e "$work/.status" ] && [ $(($(uptime_seconds) - began)) -lt "$limit" ]; do
        naps=$((naps + 1))
        [ $naps -gt 3 ] || { sleep 0.01 2>/dev/null && continue; }
        sleep $nap
    done
    error=$(head -n 1 "$work/.error" 2>/dev/null | tr '\t' ' ')
    bytes=$(wc -c <"$work/$name")
    if [ ! -e "$work/.status" ]; then
        kill $reader 2>/dev/null
        mv "$work/$name" "$work/$name.partial"
        error="no end after $limit s"
    elif [ "$bytes" -ge $((mebibytes * 1048576)) ]; then
        mv "$work/$name" "$work/$name.partial"
        error="larger than $mebibytes MiB"
    elif [ "$bytes" -eq 0 ]; then
        rm -f "$work/$name"
        error=${error:-empty}
    else
        error=''
    fi
    rm -f "$work/.error"
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$began" $(($(uptime_seconds) - began)) "$((bytes + 0))" "${error:-ok}" >>"$work/manifest"
    [ -z "$error" ] || say "  $name: $error"
}

# Sections, then page tables, then sections again: equal ones belong to one moment.
take_state() {
    for try in 1 2 3; do
        each take "$items_state"
        each take "$items_tables"
        mkdir "$work/.before"
        for name in memory_blocks iomem; do
            [ ! -e "$work/$name" ] || mv "$work/$name" "$work/.before/"
        done
        each take "$items_state"
        same=1
        for name in memory_blocks iomem; do
            [ ! -e "$work/.before/$name" ] || cmp -s "$work/.before/$name" "$work/$name" || same=''
        done
        rm -rf "$work/.before"
        [ -z "$same" ] || return 0
        say "  memory was plugged or unplugged meanwhile (try $try of 3)"
    done
    printf 'unstable\t-\t-\t-\t%s\n' 'memory changed while the page tables were read: collect again' >>"$work/manifest"
}

redact_files() {
    host=$(uname -n | sed 's/[][\.*^$/(){}+?|]/\\&/g')
    for file in @PRIVATE@; do
        [ -e "$work/$file" ] || continue
        sed -E -e "s/(^|[^A-Za-z0-9_-])$host([^A-Za-z0-9_-]|\$)/\1(none)\2/g" \
            -e 's/([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}/xx:xx:xx:xx:xx:xx/g' \
            -e 's/([Ss]erial *([Nn]umber|[Nn]o)?\.?[:=] *)[^ ,]+/\1(redacted)/g' \
            -e 's/"(id|serial|uuid)":"[^"]*"/"\1":"(redacted)"/g' "$work/$file" >"$work/.redacted" &&
            mv "$work/.redacted" "$work/$file"
    done
}

check_host() {
    [ "$(uname -s)" = Linux ] || { say 'collect: this is not a Linux host'; exit 2; }
    [ "$(uname -m)" = aarch64 ] || say "note: this host is $(uname -m); ptaudit audits arm64 kernels"
    if [ "$(id -u)" != 0 ]; then
        say 'note: not root: page tables, addresses in /proc/iomem and VMCOREINFO will be missing'
    elif [ ! -e $debug/kernel_page_tables ]; then
        if [ -z "$(ls $debug 2>/dev/null)" ]; then
            say "note: debugfs is not mounted, and this script changes nothing: mount -t debugfs debugfs $debug"
        else
            say 'note: this kernel has no kernel_page_tables file (CONFIG_PTDUMP_DEBUGFS=y makes it)'
        fi
        if [ -r /proc/kcore ]; then
            say 'note: /proc/kcore has the page tables: ptaudit collect and its script for Python (--print-script=python) take them'
        else
            say 'note: a crash dump has the page tables'
        fi
    fi
}

check_host
label=$(uname -n | tr -c 'A-Za-z0-9._\n-' '_')
[ -z "$redact" ] || label=host
[ -n "$out" ] || out=ptaudit-$label-$(date +%Y%m%d-%H%M%S).tar.gz
case $out in
    */) target=$out ;;
    *.tar.gz | *.tgz) target='' ;;
    *) out=$out.tar.gz target='' ;;
esac

if [ -n "$dry" ]; then
    say "would read, and write $out:"
    for items in "$items_before" "$items_state" "$items_tables" "$items_after"; do
        each announce "$items" >&2
    done
    exit 0
fi

# Everything is made in a private folder, which takes its name, or gives its files, when all is there.
made=''
if [ -n "$target" ]; then
    beside=${target%/}
    if [ -L "$beside" ]; then
        say "collect: $beside is a link: name a folder"
        exit 2
    elif [ ! -e "$beside" ]; then
        mkdir -p "$beside" || exit 2
        made=1
    elif [ ! -d "$beside" ] || [ ! -O "$beside" ]; then
        say "collect: $beside is not a folder of yours"
        exit 2
    elif [ -e "$beside/manifest" ]; then
        say "collect: $beside holds a capture already"
        exit 2
    elif [ -n "$(ls -A "$beside")" ]; then
        say "collect: $beside is not empty"
        exit 2
    fi
else
    case $out in
        */*) beside=${out%/*} ;;
        *) beside=. ;;
    esac
    [ ! -d "$out" ] || { say "collect: $out is a folder"; exit 2; }
fi
private=$(mktemp -d "$beside/.ptaudit.XXXXXX") || { say "collect: nothing can be written to $beside"; exit 2; }
trap '[ -z "$running" ] || { kill "$running"; wait "$running"; } 2>/dev/null; rm -rf "$private"; [ -z "$made" ] || rmdir "$beside" 2>/dev/null' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
work=$private/capture
mkdir "$work" || exit 2

say "collecting into $out"
printf 'name\tuptime\tseconds\tbytes\tresult\n' >"$work/manifest"
each take "$items_before"
take_state
each take "$items_after"
[ -z "$redact" ] || redact_files
rm -f "$work/.status"
say "taken: $(cd "$work" && printf '%s ' *)"

# -T: a folder, or a link to one, that came to be there meanwhile is not moved into. Old busybox does not have it.
place() {
    if mv -fT "$1" "$2" 2>/dev/null; then return 0; fi
    [ ! -d "$2" ] && mv -f "$1" "$2"
}

if [ -n "$target" ]; then
    made=''
    for file in "$work"/*; do
        place "$file" "$beside/${file##*/}" || { say "collect: $beside cannot be written"; exit 2; }
    done
elif (cd "$work" && tar -cf - -- *) | gzip -c >"$private/bundle" && place "$private/bundle" "$out"; then
    say "written: $out ($(($(wc -c <"$out"))) bytes)"
else
    say "collect: $out cannot be written"
    exit 2
fi
