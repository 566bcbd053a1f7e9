# Runs on the compute node before each job: what the node lacks is said in one line, before anything is computed.
# Arguments: the paths that every node must have; $TMPDIR is asked for where it is set.
for path in "${TMPDIR:-/tmp}" "$@"; do
    if ! [ -e "$path" ]; then
        echo "error: $path is not there on compute node $(hostname); mount it, or change the path: precommand in" \
            "profiles/slurm/config.yaml, or TMPDIR" >&2
        exit 1
    fi
done
