#!/usr/bin/env bash
# One S3 server for tests: a Ceph monitor, one storage daemon and a gateway, on 127.0.0.1.
#
#   ceph.sh up DIR [PORT]          start it; everything lies in DIR (default port 8333)
#   ceph.sh down DIR [TERM|KILL]   stop it; DIR can be deleted, or started again
#   ceph.sh kill-gateway DIR       kill -9 the gateway alone
#   ceph.sh start-gateway DIR      start it again and wait until it answers
#
# AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are the key that `up` makes (tidemark,
# tidemark-secret). One copy of each object, no authentication between daemons: for tests alone.
set -euo pipefail

readonly HOST=127.0.0.1
readonly CLUSTER=7d3c1f52-5a0e-4c38-9a55-74696465746d
readonly OSD=7d3c1f52-5a0e-4c38-9a55-6f7364000000
readonly DAEMONS=(client.rgw osd.0 mon.a)
readonly PATIENCE=60

usage() {
    sed -n '4,7s/^# *//p' "$0" >&2
    exit 2
}

write_config() {
    cat >"$dir/ceph.conf" <<EOF
[global]
fsid = $CLUSTER
mon_host = [v2:$HOST:$mon_port/0]
public_addr = $HOST
cluster_addr = $HOST
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
auth_allow_insecure_global_id_reclaim = false
ms_mon_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
run_dir = $dir/run
admin_socket = $dir/run/\$name.asok
pid_file = $dir/run/\$name.pid
log_file = $dir/log/\$name.log
crash_dir = $dir/log
keyring = $dir/keyring
osd_pool_default_size = 1
osd_pool_default_min_size = 1
mon_allow_pool_size_one = true
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
rgw_rados_pool_pg_num_min = 4
osd_crush_chooseleaf_type = 0
osd_crush_initial_weight = 1
osd_beacon_report_interval = 60
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_tick_interval = 1
mon_data_avail_warn = 2
mon_data_avail_crit = 1

[mon]
mon_data = $dir/mon

[osd]
osd_data = $dir/osd
osd_objectstore = bluestore
bluestore_block_size = 10737418240
bluestore_fsck_on_mount = false
osd_memory_target = 939524096

[client.rgw]
rgw_data = $dir/run
rgw_frontends = beast endpoint=$HOST:$port tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_dynamic_resharding = false
rgw_override_bucket_index_max_shards = 1
rgw_enable_ops_log = false
rgw_enable_usage_log = false
rgw_run_sync_thread = false
EOF
}

answers() {
    (exec 3<>"/dev/tcp/$HOST/$port") 2>/dev/null
}

start_gateway() {
    radosgw -c "$dir/ceph.conf" -n client.rgw
    for _ in $(seq $((PATIENCE * 10))); do
        if answers; then return; fi
        sleep 0.1
    done
    echo "the gateway does not answer at $HOST:$port; see $dir/log" >&2
    exit 1
}

make_key() {
    [[ ! -s $dir/key ]] || return 0
    radosgw-admin -c "$dir/ceph.conf" user create --uid=tidemark --display-name=tidemark \
        --access-key="${AWS_ACCESS_KEY_ID:-tidemark}" \
        --secret-key="${AWS_SECRET_ACCESS_KEY:-tidemark-secret}" \
        >"$dir/key.part" 2>"$dir/log/key.log"
    mv "$dir/key.part" "$dir/key"
}

up() {
    port=${1:-$(cat "$dir/port" 2>/dev/null || echo 8333)}
    mon_port=$((port + 1000))
    mkdir -p "$dir"/{run,log,mon,osd}
    echo "$port" >"$dir/port"
    write_config
    if [[ ! -e $dir/mon/store.db ]]; then
        monmaptool --create --clobber --fsid "$CLUSTER" --addv a "[v2:$HOST:$mon_port]" \
            "$dir/monmap" >/dev/null
        ceph-mon -c "$dir/ceph.conf" --mkfs -i a --monmap "$dir/monmap"
    fi
    ceph-mon -c "$dir/ceph.conf" -i a --public-addr "$HOST:$mon_port"
    if [[ ! -e $dir/osd/ready ]]; then
        ceph -c "$dir/ceph.conf" --connect-timeout 20 osd new "$OSD" >/dev/null
        ceph-osd -c "$dir/ceph.conf" -i 0 --mkfs --osd-uuid "$OSD" >"$dir/log/mkfs.log" 2>&1
    fi
    ceph-osd -c "$dir/ceph.conf" -i 0 2>>"$dir/log/osd.start.log"
    start_gateway
    make_key
    echo "http://$HOST:$port"
}

pid_of() { # of a daemon of this folder, not of whoever has its number since
    local pid
    pid=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
    grep -qF "$dir/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

stop() { # stop SIGNAL DAEMON...; one after the other, for the gateway needs the others to end
    local signal=$1 daemon pid
    shift
    for daemon in "$@"; do
        pid=$(pid_of "$daemon") || continue
        kill "-$signal" "$pid" 2>/dev/null || continue
        for _ in $(seq $((PATIENCE * 10))); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        rm -f "$dir/run/$daemon.pid"
    done
}

[[ $# -ge 2 ]] || usage
mkdir -p "$2"
dir=$(cd "$2" && pwd)
case $1 in
    up) up "${3:-}" ;;
    down) stop "${3:-TERM}" "${DAEMONS[@]}" ;;
    kill-gateway) stop KILL client.rgw ;;
    start-gateway) port=$(cat "$dir/port") && start_gateway ;;
    *) usage ;;
esac
