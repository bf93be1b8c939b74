#!/usr/bin/env bash
# Train on two hosts and on one, and compare; then again with the link between them cut for a while.
# The hosts are network namespaces with a virtual link (Linux, as root):
#     PYTHON=.venv/bin/python tests/by_hand/two_hosts.sh [strategy]
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python} strategy=${1:-full}
work=$(mktemp -d)
export OMP_NUM_THREADS=1 TQDM_DISABLE=1 GOING_MODULAR_CACHE=$work/cache

clean_up() {
    jobs -p | xargs -r kill 2>/dev/null || true
    ip netns del gm-a || true
    ip netns del gm-b || true
    rm -rf "$work"
}
trap clean_up EXIT

ip netns add gm-a
ip netns add gm-b
ip link add gm-a0 netns gm-a type veth peer name gm-b0 netns gm-b
for host in a b; do
    ip -n gm-$host link set lo up
    ip -n gm-$host addr add 10.77.0.$([ $host = a ] && echo 1 || echo 2)/24 dev gm-${host}0
    ip -n gm-$host link set gm-${host}0 up
done

host() {  # the n-th of two, writing to $2
    name=$([ "$1" = 0 ] && echo a || echo b)
    GLOO_SOCKET_IFNAME=gm-${name}0 ip netns exec gm-$name "$python" -m torch.distributed.run \
        --nnodes 2 --nproc-per-node 1 --node-rank "$1" --master-addr 10.77.0.1 --master-port 29400 \
        --local-addr "10.77.0.$(($1 + 1))" \
        tests/by_hand/equalities.py "$strategy" "$2"
}

sent() { ip netns exec gm-a cat /sys/class/net/gm-a0/statistics/tx_bytes; }

both() {  # writing to $1, with the link cut for $2 seconds while gradients are exchanged
    before=$(sent)
    host 1 "$work/unused.pt" >"$work/host-1.log" 2>&1 &
    other=$!
    host 0 "$1" >"$work/host-0.log" 2>&1 &
    main=$!
    if [ "$2" -gt 0 ]; then
        until [ $(($(sent) - before)) -gt "$cut_after" ]; do sleep 0.05; kill -0 $main; done
        ip -n gm-a link set gm-a0 down
        echo "the link is cut after $((($(sent) - before) / 1000)) kB"
        sleep "$2"
        ip -n gm-a link set gm-a0 up
        echo "the link is back after $2 s"
    fi
    if ! wait $main || ! wait $other; then
        tail -n 30 "$work"/host-?.log
        exit 1
    fi
    grep epoch "$work/host-0.log"
    echo "the first host has sent $((($(sent) - before) / 1000)) kB"
}

"$python" tests/by_hand/equalities.py "$strategy" "$work/one.pt" | grep epoch
both "$work/two-hosts.pt" 0
cut_after=$((($(sent) - before) / 2))
both "$work/link-cut.pt" "${CUT:-8}"
"$python" tests/by_hand/equalities.py compare "$work/one.pt" "$work/two-hosts.pt" "$work/link-cut.pt"
