# shellcheck shell=bash disable=SC2154 # `here` and `repo` are the demo's
# The steps of a demo: a title, commands as a reader would type them, and a lab that is removed afterwards.

export LAB=demo-$$
export DPD=${DPD:-${CARGO_TARGET_DIR:-$repo/target}/release/dpd}

bold='' dim='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi

lab() { "$here/lab" "$@"; }

fail() {
	local log
	echo >&2
	echo "demo: $*" >&2
	for log in "/run/dpd-lab/$LAB"/dpd*.log; do
		[[ -s $log ]] || continue
		echo "demo: the end of $(basename "$log"):" >&2
		tail -n 15 "$log" >&2
	done
	exit 1
}

step=0
# say TITLE SENTENCE…: opens a step.
say() {
	step=$((step + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$step" "$1" "$plain"
	shift
	printf '%s\n' "$@" | fold -s -w 96 | sed 's/^/   /'
}

# prompt NAMESPACE CMD…: the command as a reader would type it; of `sh -c` only the argument.
prompt() {
	local name=$1
	shift
	[[ "$1 ${2:-}" != "sh -c" ]] || shift 2
	printf '\n%s[%s]# %s%s\n' "$dim" "$name" "$*" "$plain"
}

# show PATTERN NAMESPACE CMD…: runs it there, prints it with its output, and fails if no line matches.
show() {
	local pattern=$1 name=$2 output
	shift 2
	prompt "$name" "$@"
	output=$(lab enter "$name" "$@" 2>&1) || { echo "$output"; fail "'$*' failed."; }
	echo "$output"
	grep -Eq -- "$pattern" <<<"$output" || fail "'$*' was expected to show '$pattern'."
}

# The same for what appears with a delay: repeats the command until a line matches.
show_soon() {
	local pattern=$1 name=$2 deadline=$((SECONDS + 5)) output
	shift 2
	until output=$(lab enter "$name" "$@" 2>&1) && grep -Eq -- "$pattern" <<<"$output"; do
		((SECONDS < deadline)) || break
		sleep 0.1
	done
	show "$pattern" "$name" "$@"
}

# show_refused WHO NAMESPACE CMD…: the same for a command that must fail.
show_refused() {
	local who=$1 name=$2
	shift 2
	prompt "$name" "$@"
	! lab enter "$name" "$@" || fail "$who got a reply."
}

# without_comments FILE [SECTION…]: the file without comments; only these sections, if any are given.
without_comments() {
	local file=$1
	shift
	grep -v '^[[:space:]]*#' "$file" | awk -v wanted="$*" '
		BEGIN { some = split(wanted, names, " "); for (i in names) keep["[" names[i] "]"] = 1 }
		/^\[/ { kept = !some || $1 in keep }
		NF && kept { print "   " $0 }'
}

take_down() {
	echo
	echo "Removing the lab …"
	lab down
}

[[ $EUID == 0 ]] || { echo "demo: needs root to create network namespaces: try 'sudo make demo'" >&2; exit 1; }
[[ -x $DPD ]] || { echo "demo: there is no dpd at $DPD: run 'make' first" >&2; exit 1; }

trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
