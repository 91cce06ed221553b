# Runs one PostgreSQL for the process at the other end of standard input, and cleans up when that
# process says so or is gone: a pipe closes even after SIGKILL.
# Arguments: the folder to remove at the end, the log, and the server's command line.
folder=$1 log=$2
shift 2
server=
while read -r order; do
    case $order in
    start)
        "$@" </dev/null >>"$log" 2>&1 &
        server=$!
        ;;
    stop)
        kill -INT "$server"
        wait "$server"
        server=
        echo stopped
        ;;
    quit) break ;;
    esac
done
if [ -n "$server" ]; then
    # The data goes away anyway: no need for an orderly end.
    kill -QUIT "$server"
    wait "$server"
fi
rm -rf "$folder"
