#!/usr/bin/env bash
# A run shared by two hosts, shown on one machine: two network namespaces joined by a cable, one process in each.
#     sudo tools/two_hosts.sh STORE [PYTHON]
# trains the same few steps in one process too, and prints the losses of both. Needs root, Linux and iproute2.
set -euo pipefail
store=$(realpath "$1") python=${2:-python} folder=$(mktemp -d)
run() {
  "$@" -m gaitdiff pretrain --model.name smplgait --model.preset walkers --diffusion.denoiser walkers \
    --data.latent_frames 2 --data.gait_frames 3 --optim.batch 4 --optim.warmup 1 --optim.iterations 6 \
    --run.log_every 2 --run.evaluate_every 0 --machine.device cpu --machine.threads 1 --machine.precision float32 \
    --data.store "$store" --out "$out"
}
clean() { for host in 1 2; do ip netns del "gaitdiff-$host" 2> /dev/null || true; done; }
trap clean EXIT
clean
for host in 1 2; do ip netns add "gaitdiff-$host" && ip -n "gaitdiff-$host" link set lo up; done
ip link add cable1 netns gaitdiff-1 type veth peer name cable2 netns gaitdiff-2
for host in 1 2; do
  ip -n "gaitdiff-$host" addr add "10.9.0.$host/24" dev "cable$host"
  ip -n "gaitdiff-$host" link set "cable$host" up
done
out=$folder/two
for host in 1 2; do
  GLOO_SOCKET_IFNAME=cable$host OMP_NUM_THREADS=1 run ip netns exec "gaitdiff-$host" "$python" -m torch.distributed.run \
    --nnodes 2 --node_rank $((host - 1)) --nproc_per_node 1 --master_addr 10.9.0.1 --master_port 29500 \
    > "$folder/host$host.log" 2>&1 &
done
wait
out=$folder/one
OMP_NUM_THREADS=1 run "$python" > "$folder/one.log" 2>&1
for name in two one; do echo "$name: $(grep -o '"loss": [0-9.]*' "$folder/$name/metrics.jsonl" | tr '\n' ' ')"; done
