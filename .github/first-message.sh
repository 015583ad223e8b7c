#!/usr/bin/env bash
# Runs the README's two steps on a fresh checkout: npm start, then the first message.
# Fails if the message is not acked, or if RowMQ does not stop in order.
set -eo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
port=${ROWMQ_PORT:-8080}
work=$(mktemp -d)
trap 'kill "$npm" 2>/dev/null || true; rm -rf "$work"' EXIT

npm start >"$work/start.log" 2>&1 &
npm=$!
for ((second = 0; second < 900; second++)); do
  if grep -q 'RowMQ is running' "$work/start.log"; then break; fi
  kill -0 "$npm" 2>/dev/null || { cat "$work/start.log"; echo 'npm start ended early' >&2; exit 1; }
  sleep 1
done
cat "$work/start.log"
grep -q 'RowMQ is running' "$work/start.log" || { echo 'npm start took over 15 minutes' >&2; exit 1; }

# The README's shell blocks that call the broker, exactly as they are printed there.
awk '/^```sh$/ { block = ""; inside = 1; next }
     /^```$/ && inside { inside = 0; if (block ~ /\$ROWMQ\//) printf "%s", block; next }
     inside { block = block $0 "\n" }' README.md >"$work/first-message.sh"
ROWMQ=http://127.0.0.1:$port bash -eo pipefail "$work/first-message.sh" | tee "$work/answers"
echo
grep -q '"acked":\["' "$work/answers" || { echo 'the message was not acked' >&2; exit 1; }

kill -TERM "$npm"
wait "$npm" || code=$?
# 143 is npm's own code for the SIGTERM that it passed on.
case ${code:-0} in 0 | 143) ;; *) echo "npm start ended with $code" >&2; exit 1 ;; esac
if curl -s "http://127.0.0.1:$port/health/live"; then echo 'the broker still runs' >&2; exit 1; fi
echo 'RowMQ has stopped.'
