#!/usr/bin/env bash
# A real Kafka broker for the tests: one node, KRaft mode, loopback only.
#
# `install` fills the cache from Maven; `start` chooses free ports, formats the data folder and waits until the broker
# answers; everything a broker owns lies under its DIR (server.properties, data/, pid, port, server.log), so that several
# run side by side and a test can stop, kill and restart its own. Where the jars cannot be fetched, the `nisshi` broker
# built by cargo takes their place behind the same commands.
#
# Limits: 1 GiB of heap at most (COSTHELM_KAFKA_HEAP), 60 s to become ready, 30 s to stop, ports 20000-31999 (below the
# range from which outgoing connections take theirs, so that a restart finds its port free).
set -euo pipefail

# The newest release that is complete on Maven Central: broker, tools and signatures.
readonly KAFKA_VERSION=4.3.1
readonly LOG4J_VERSION=2.25.4
readonly COPY_PLUGIN=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
# SHA-256 over the sorted `sha256sum` lines of all jars: what runs is what was tested, wherever it was fetched from.
readonly JARS_SHA256=6a7d36777165ea9243f801bbfa86ca9f072dfa0204bb9abf82e5f24792891d54
# Later ones need a newer compiler than rust-toolchain.toml pins.
readonly NISSHI_VERSION=0.6.0
# The 16 bytes "costhelm-tests-0", as Kafka writes cluster ids (base64url).
readonly CLUSTER_ID=Y29zdGhlbG0tdGVzdHMtMA
readonly READY_S_MAX=60
readonly STOP_S_MAX=30

CACHE="${COSTHELM_CACHE:-$HOME/.cache/costhelm}"
KAFKA_HOME="$CACHE/kafka-$KAFKA_VERSION"
NISSHI_HOME="$CACHE/nisshi-$NISSHI_VERSION"

usage() {
    cat <<'END'
usage: kafka.sh install                                  fetch the broker into the cache
       kafka.sh start DIR                                start a broker; prints bootstrap=127.0.0.1:PORT when it is ready
       kafka.sh stop DIR                                 stop it and wait until it is gone
       kafka.sh restart DIR                              stop if it runs, start on the same port and data
       kafka.sh kill DIR                                 SIGKILL, as a crash would
       kafka.sh topic DIR NAME PARTITIONS [KEY=VALUE]... create a topic, with topic settings

environment: COSTHELM_CACHE                where the broker is kept (default ~/.cache/costhelm)
             COSTHELM_KAFKA_BROKER         kafka, nisshi or auto (default: Kafka, else nisshi)
             COSTHELM_KAFKA_HEAP           Java heap, 512m to 1g (default 768m)
             COSTHELM_KAFKA_PARTITIONS     partitions of a topic created by itself (default 4)
             COSTHELM_KAFKA_AUTO_CREATE    true lets clients create topics by using them (default false)
END
}

note() { printf 'kafka.sh: %s\n' "$*" >&2; }
die() {
    note "$@"
    exit 1
}

# --- install ---------------------------------------------------------------------------------------------------------

have_java() { command -v java >/dev/null 2>&1; }
have_maven() { command -v mvn >/dev/null 2>&1; }

apt_install() {
    if ! command -v apt-get >/dev/null 2>&1; then
        note "$* missing; install them with your system's package manager (Java 17 or newer)"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        note "$* missing; run: sudo apt-get install -y $*"
        return 1
    fi
    note "installing $*"
    local log
    log="$(mktemp)"
    if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } \
        >"$log" 2>&1; then
        rm -f "$log"
    else
        note "apt-get could not install $*: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
        rm -f "$log"
        return 1
    fi
}

ensure_java() {
    have_java || apt_install default-jre-headless || return 1
    local major
    major="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n1)"
    if [ "${major:-0}" -lt 17 ]; then
        note "Kafka $KAFKA_VERSION needs Java 17 or newer, found ${major:-none}"
        return 1
    fi
}

write_pom() {
    cat >"$1" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>costhelm</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$KAFKA_VERSION</version>
    </dependency>
    <!-- For TopicCommand alone; what it needs comes with the broker, and Connect and its web server stay out. -->
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$KAFKA_VERSION</version>
      <exclusions>
        <exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion>
      </exclusions>
    </dependency>
    <!-- The broker logs through slf4j and brings no backend. -->
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>$LOG4J_VERSION</version>
    </dependency>
  </dependencies>
</project>
END
}

# Warnings only, but for the one line that says the broker is ready.
write_log_config() {
    cat >"$1" <<'END'
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.ready.name = kafka.server.KafkaRaftServer
logger.ready.level = info
END
}

jars_sha256() (
    cd "$1" && LC_ALL=C sha256sum -- *.jar | LC_ALL=C sort | sha256sum | cut -d' ' -f1
)

install_kafka() {
    if [ -f "$KAFKA_HOME/complete" ]; then
        ensure_java
        return
    fi
    ensure_java || return 1
    have_maven || apt_install maven || return 1

    local work log found
    mkdir -p "$CACHE"
    work="$(mktemp -d "$CACHE/kafka-$KAFKA_VERSION.XXXXXX")"
    log="$work/maven.log"
    write_pom "$work/pom.xml"
    write_log_config "$work/log4j2.properties"
    note "fetching Apache Kafka $KAFKA_VERSION with Maven"
    if ! (cd "$work" && mvn -B -q "$COPY_PLUGIN:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$work/libs" \
        </dev/null >"$log" 2>&1); then
        note "Maven could not fetch Apache Kafka $KAFKA_VERSION: $(first_error "$log")"
        rm -rf "$work"
        return 1
    fi
    found="$(jars_sha256 "$work/libs")"
    if [ "$found" != "$JARS_SHA256" ]; then
        # Not a reason to fall back: a broker other than the tested one must be looked at, not worked around.
        rm -rf "$work"
        die "the jars of Apache Kafka $KAFKA_VERSION have SHA-256 $found, expected $JARS_SHA256; nothing was installed"
    fi
    touch "$work/complete"
    # Another run may have finished first; its copy is as good.
    mv -T "$work" "$KAFKA_HOME" 2>/dev/null || rm -rf "$work"
    [ -f "$KAFKA_HOME/complete" ] || die "$KAFKA_HOME is there but incomplete; remove it and try again"
}

# The first error in a log as one line: without colour, addresses, and the chain of who asked whom.
first_error() {
    sed -e 's/\x1b\[[0-9;]*m//g' -e 's/ -> \[Help.*//' "$1" | grep -m1 -iE 'error|exception|fatal' \
        | sed -E -e 's/^\[ERROR\] *//' -e 's/.*(Could not (transfer|find|resolve))/\1/' -e 's#https?://[^ )]*#the registry#g' \
            -e 's/Connect to [^ ]+ (\[[^]]*\] )?failed/connecting failed/' \
        | cut -c1-240 || echo "see its output"
}

install_nisshi() {
    [ -x "$NISSHI_HOME/bin/nisshi" ] && return
    command -v cargo >/dev/null 2>&1 || {
        note "cargo is not installed, so the nisshi broker cannot be built"
        return 1
    }
    note "building the nisshi $NISSHI_VERSION broker with cargo (some minutes)"
    mkdir -p "$CACHE"
    local log="$CACHE/nisshi-$NISSHI_VERSION.log"
    # A build folder and profile of its own: the tests' target folder stays as it is, and link-time optimisation is not
    # worth the wait.
    if ! CARGO_TARGET_DIR="$CACHE/nisshi-build" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install nisshi --version "=$NISSHI_VERSION" --locked --no-default-features --features libsql \
        --root "$NISSHI_HOME" </dev/null >"$log" 2>&1; then
        note "cargo could not install nisshi $NISSHI_VERSION: $(first_error "$log") (log: $log)"
        return 1
    fi
    rm -rf "$CACHE/nisshi-build"
}

# Prints the broker that is installed now: kafka or nisshi.
install_any() {
    local want="${COSTHELM_KAFKA_BROKER:-auto}"
    case "$want" in
        kafka) install_kafka || die "no broker: Apache Kafka $KAFKA_VERSION could not be installed" && echo kafka ;;
        nisshi) install_nisshi || die "no broker: nisshi $NISSHI_VERSION could not be installed" && echo nisshi ;;
        auto)
            if install_kafka; then
                echo kafka
            else
                note "Apache Kafka cannot be had here; falling back to the nisshi broker"
                install_nisshi || die "no broker: neither Apache Kafka $KAFKA_VERSION nor nisshi $NISSHI_VERSION could be installed"
                echo nisshi
            fi
            ;;
        *) die "COSTHELM_KAFKA_BROKER is '$want', expected kafka, nisshi or auto" ;;
    esac
}

# --- a broker's folder -----------------------------------------------------------------------------------------------

absolute() { (cd "$1" && pwd -P); }

existing_dir() {
    [ -d "$1" ] || die "$1 is not a folder; start a broker there first"
    absolute "$1"
}

# The pid in DIR/pid when that process is this broker's: a pid may have been given to another process since.
running_pid() {
    local dir="$1" pid
    [ -s "$dir/pid" ] || return 1
    pid="$(cat "$dir/pid")"
    [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -e "$dir/" || return 1
    echo "$pid"
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local taken="${1:-0}" port
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if [ "$port" -ne "$taken" ] && port_is_free "$port"; then
            echo "$port"
            return
        fi
    done
    die "no free port found between 20000 and 31999 in 100 tries"
}

write_server_properties() {
    local dir="$1" port="$2" controller="$3"
    cat >"$dir/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/data
num.partitions=${COSTHELM_KAFKA_PARTITIONS:-4}
auto.create.topics.enable=${COSTHELM_KAFKA_AUTO_CREATE:-false}
default.replication.factor=1
min.insync.replicas=1
# Tests send events of other years; nothing may expire under them.
log.retention.ms=-1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
# A group forms at once, and a killed member may be missed within a second.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A killed broker may register again once its old session is over; by default that takes 9 s.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
END
}

java_with_libs() {
    java -cp "$KAFKA_HOME/libs/*" -Dlog4j2.configurationFile="$KAFKA_HOME/log4j2.properties" "$@"
}

format_data() {
    local dir="$1"
    [ -f "$dir/data/meta.properties" ] && return
    java_with_libs -Xmx128m -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format -t "$CLUSTER_ID" \
        -c "$dir/server.properties" >"$dir/format.log" 2>&1 \
        || die "Kafka could not format $dir/data: $(tail -n1 "$dir/format.log")"
}

launch() {
    local dir="$1" kind="$2" port heap
    port="$(cat "$dir/port")"
    # What is waited for must come from this run; the run before stays readable.
    if [ -f "$dir/server.log" ]; then mv "$dir/server.log" "$dir/server.log.before"; fi
    : >"$dir/server.log"
    # A session of its own: Ctrl-C in the terminal reaches the test run, which then stops the broker in order.
    case "$kind" in
        kafka)
            heap="${COSTHELM_KAFKA_HEAP:-768m}"
            setsid java -cp "$KAFKA_HOME/libs/*" "-Xms$heap" "-Xmx$heap" -Djava.awt.headless=true \
                -Dlog4j2.configurationFile="$KAFKA_HOME/log4j2.properties" \
                kafka.Kafka "$dir/server.properties" </dev/null >>"$dir/server.log" 2>&1 &
            ;;
        nisshi)
            # It takes the path in the storage address from its working folder on.
            RUST_LOG=warn setsid env -C / "$NISSHI_HOME/bin/nisshi" broker --cluster-id "$CLUSTER_ID" \
                --listener-url "tcp://127.0.0.1:$port" --advertised-listener-url "tcp://127.0.0.1:$port" \
                --storage-engine "sqlite://$dir/nisshi.db" </dev/null >>"$dir/server.log" 2>&1 &
            ;;
    esac
    echo "$!" >"$dir/pid"
}

is_ready() {
    local dir="$1" kind="$2" port="$3"
    # Kafka opens its port a little before it serves; it says when it does.
    if [ "$kind" = kafka ]; then grep -q 'Kafka Server started' "$dir/server.log" || return 1; fi
    ! port_is_free "$port"
}

wait_ready() {
    local dir="$1" kind="$2" port="$3" deadline=$((SECONDS + READY_S_MAX))
    until is_ready "$dir" "$kind" "$port"; do
        if ! kill -0 "$(cat "$dir/pid")" 2>/dev/null; then
            rm -f "$dir/pid"
            note "the $kind broker in $dir ended while starting: $(first_error "$dir/server.log") (log: $dir/server.log)"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            note "the $kind broker in $dir is not ready after $READY_S_MAX s (log: $dir/server.log)"
            stop_running "$dir"
            return 1
        fi
        sleep 0.1
    done
}

# --- commands --------------------------------------------------------------------------------------------------------

start_broker() {
    local dir="$1" kind port fresh=false
    mkdir -p "$dir"
    dir="$(absolute "$dir")"
    if running_pid "$dir" >/dev/null; then
        die "a broker already runs in $dir as process $(cat "$dir/pid"), on port $(cat "$dir/port")"
    fi
    if [ -f "$dir/kind" ]; then
        # Data of an earlier start: the same broker, settings and port, so that clients find it again.
        kind="$(cat "$dir/kind")"
        COSTHELM_KAFKA_BROKER="$kind" install_any >/dev/null
    else
        kind="$(install_any)"
        fresh=true
    fi
    for attempt in 1 2 3; do
        if "$fresh"; then
            port="$(free_port)"
            echo "$port" >"$dir/port"
            if [ "$kind" = kafka ]; then
                write_server_properties "$dir" "$port" "$(free_port "$port")"
                format_data "$dir"
            fi
        fi
        port="$(cat "$dir/port")"
        launch "$dir" "$kind"
        if wait_ready "$dir" "$kind" "$port"; then
            echo "$kind" >"$dir/kind"
            echo "bootstrap=127.0.0.1:$port"
            return
        fi
        # Between choosing a port and taking it another process may have come; nothing else is worth a second try.
        if ! "$fresh" || ! grep -qiE 'address already in use|BindException' "$dir/server.log"; then break; fi
        note "port $port was taken meanwhile; try $attempt of 3"
        rm -rf "$dir/data"
    done
    die "no broker was started in $dir"
}

stop_running() {
    local dir="$1" pid deadline=$((SECONDS + STOP_S_MAX))
    if pid="$(running_pid "$dir")"; then
        kill -TERM "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
        if kill -0 "$pid" 2>/dev/null; then
            note "process $pid did not stop within $STOP_S_MAX s; killing it"
            kill -KILL "$pid" 2>/dev/null || true
            while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
        fi
    fi
    rm -f "$dir/pid"
}

kill_broker() {
    local dir pid
    dir="$(existing_dir "$1")"
    pid="$(running_pid "$dir")" || die "no broker runs in $dir"
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    rm -f "$dir/pid"
}

create_topic() {
    local dir name="$2" partitions="$3" port kind log
    dir="$(existing_dir "$1")"
    shift 3
    running_pid "$dir" >/dev/null || die "no broker runs in $dir; topic $name was not created"
    [[ "$partitions" =~ ^[1-9][0-9]*$ ]] || die "PARTITIONS is '$partitions', expected a whole number above 0"
    port="$(cat "$dir/port")"
    kind="$(cat "$dir/kind")"
    log="$dir/topic.log"
    local settings=() setting
    for setting in "$@"; do
        [[ "$setting" == ?*=* ]] || die "topic setting '$setting' is not KEY=VALUE"
        settings+=(--config "$setting")
    done
    case "$kind" in
        kafka)
            java_with_libs -Xmx128m -XX:TieredStopAtLevel=1 org.apache.kafka.tools.TopicCommand \
                --bootstrap-server "127.0.0.1:$port" --create --topic "$name" --partitions "$partitions" \
                --replication-factor 1 "${settings[@]}" >"$log" 2>&1 \
                || die "topic $name was not created: $(first_error "$log")"
            ;;
        nisshi)
            "$NISSHI_HOME/bin/nisshi" topic create --broker "tcp://127.0.0.1:$port" --partitions "$partitions" \
                "${settings[@]}" "$name" >"$log" 2>&1 \
                || die "topic $name was not created: $(first_error "$log")"
            ;;
    esac
    echo "topic=$name partitions=$partitions"
}

need_arguments() {
    [ "$1" -ge "$2" ] || {
        usage >&2
        exit 2
    }
}

need_arguments "$#" 1
command="$1"
shift
case "$command" in
    install)
        kind="$(install_any)"
        if [ "$kind" = kafka ]; then echo "kafka $KAFKA_VERSION in $KAFKA_HOME"; else echo "nisshi $NISSHI_VERSION in $NISSHI_HOME"; fi
        ;;
    start)
        need_arguments "$#" 1
        start_broker "$1"
        ;;
    stop)
        need_arguments "$#" 1
        stop_running "$(existing_dir "$1")"
        ;;
    restart)
        need_arguments "$#" 1
        dir="$(existing_dir "$1")"
        stop_running "$dir"
        start_broker "$dir"
        ;;
    kill)
        need_arguments "$#" 1
        kill_broker "$1"
        ;;
    topic)
        need_arguments "$#" 3
        create_topic "$@"
        ;;
    help | -h | --help) usage ;;
    *)
        note "unknown command '$command'"
        usage >&2
        exit 2
        ;;
esac
