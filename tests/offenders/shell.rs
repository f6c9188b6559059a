//! What a shell and its usual programs can leak.

use super::{Blamed, Caught, Offender, Same, try_all};
use crate::harness::Workspace;

const fn leak(class: &'static str, script: &'static str, culprits: &'static [&'static str]) -> Offender {
    Offender { class, needs: "", script, expected: Blamed(culprits) }
}

const fn race(class: &'static str, script: &'static str) -> Offender {
    Offender { class, needs: "", script, expected: Caught }
}

const fn innocent(class: &'static str, script: &'static str) -> Offender {
    Offender { class, needs: "", script, expected: Same }
}

const OFFENDERS: [Offender; 46] = [
    leak("date-in-a-header", "echo \"# made at $(date)\" > $out", &["date"]),
    leak("date-in-seconds", "date +%s > $out", &["date"]),
    leak("year", "mkdir $out; echo > $out/copyright-$(date +%Y)", &["date"]),
    leak("weekday-and-hour", "date '+%a %H' > $out", &["date"]),
    leak("date-of-a-long-build", "sleep 1.2; date +%s > $out", &["date"]),
    leak("expired", "test $(date +%Y) -lt 2028; echo > $out", &["date"]),
    leak("random-id", "head -c 16 /dev/urandom | od -An -tx1 > $out", &["random"]),
    leak("uuid", "cat /proc/sys/kernel/random/uuid > $out", &["random"]),
    leak("random-of-the-shell", "echo $RANDOM > $out", &["random", "itself"]),
    leak("temporary-name", "mktemp -u > $out", &["random"]),
    leak("order-of-an-input", "find $tree -type f | sed 's,.*/,,' > $out", &["directory-order"]),
    leak("order-of-the-root", "find /usr/bin | head -n 3 > $out", &["directory-order"]),
    leak("order-of-what-it-made", "mkdir d; for n in c a b; do echo > d/$n; done; find d > $out", &["directory-order"]),
    leak(
        "first-of-a-directory",
        "mkdir d; for n in c a b; do echo > d/$n; done; find d -type f | head -n 1 > $out",
        &["directory-order"],
    ),
    leak(
        "order-of-a-tar",
        "mkdir d; for n in c a b; do echo > d/$n; done; touch -d @1 d d/*; tar cf $out d",
        &["directory-order"],
    ),
    leak("kernel-release", "uname -r > $out", &["kernel"]),
    leak("kernel-version", "uname -a > $out", &["kernel"]),
    leak("kernel-in-proc", "cat /proc/version > $out", &["kernel"]),
    leak("kernel-setting", "cat /proc/sys/kernel/osrelease > $out", &["kernel"]),
    leak("processors", "nproc > $out", &["processors"]),
    leak("processors-in-proc", "grep -c processor /proc/cpuinfo > $out", &["processors"]),
    leak("processors-in-stat", "grep -c cpu /proc/stat > $out", &["processors"]),
    leak("jobs", "echo $NIX_BUILD_CORES > $out", &["jobs"]),
    leak("jobs-as-parts", "mkdir $out; for n in $(seq $NIX_BUILD_CORES); do echo > $out/part-$n; done", &["jobs"]),
    leak("processor-model", "grep 'model name' /proc/cpuinfo | head -n 1 > $out", &["processor-model"]),
    leak("memory", "grep MemTotal /proc/meminfo > $out", &["memory"]),
    leak(
        "buffer-as-a-share-of-memory",
        "echo $(( $(sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo) / 4 )) > $out",
        &["memory"],
    ),
    leak("process-number", "sh -c 'echo $$' > $out", &["process-numbers"]),
    leak("process-number-in-a-name", "mkdir $out; echo > $out/tmp.$$", &["process-numbers"]),
    leak("inode-number", "echo > file; stat -c %i file > $out", &["inode-numbers"]),
    leak("inode-number-of-an-input", "stat -c %i $tree/a > $out", &["inode-numbers"]),
    leak("device-number", "stat -c %d . > $out", &["inode-numbers", "file-system"]),
    leak("time-of-a-file", "echo > file; stat -c %Y file > $out", &["file-times"]),
    leak("time-of-a-directory", "mkdir d; stat -c %Y d > $out", &["file-times"]),
    leak("time-in-a-tar", "mkdir d; echo > d/file; tar cf $out d", &["file-times"]),
    leak("time-of-change", "echo > file; touch -d @1 file; stat -c %Z file > $out", &["file-times"]),
    leak("uptime", "cat /proc/uptime > $out", &["uptime"]),
    leak("file-system-type", "stat -f -c %T . > $out", &["file-system"]),
    leak("size-of-a-directory", "mkdir d; echo > d/file; stat -c %s d > $out", &["file-system"]),
    leak("stack-address", "grep stack /proc/self/maps > $out", &["addresses"]),
    race(
        "race-of-two-writers",
        "for n in 1 2 3 4 5 6 7 8; do (echo a$n >> log) & (echo b$n >> log) & wait; done; cat log > $out",
    ),
    race(
        "race-of-two-programs",
        "for n in 1 2 3 4 5 6 7 8; do sh -c 'echo a >> log' & sh -c 'echo b >> log' & wait; done; cat log > $out",
    ),
    leak(
        "two-together",
        "if [ $(date +%Y) -gt 2027 ] && [ $(nproc) != 2 ]; then echo a; else echo b; fi > $out",
        &["date+processors"],
    ),
    leak("environment-with-jobs", "env | sort > $out", &["jobs"]),
    leak("fails-with-one-processor", "test $(nproc) != 1; echo > $out", &["processors"]),
    leak("fails-on-an-old-kernel", "case $(uname -r) in 5.*) exit 1;; esac; echo > $out", &["kernel"]),
];

const INNOCENT: [Offender; 26] = [
    innocent("build-path", "pwd > $out"),
    innocent("own-output-path", "echo $out > $out"),
    innocent("host-name", "hostname > $out; uname -n >> $out"),
    innocent("user", "id > $out; cat /etc/passwd /etc/group >> $out"),
    innocent("umask", "umask > $out; echo > file; chmod +x file; stat -c %a file >> $out"),
    innocent("locale-and-time-zone", "echo ${LANG-none} ${LC_ALL-none} ${TZ-none} $(date -d @0) > $out"),
    innocent("environment", "env | grep -v CORES | sort > $out"),
    innocent("environment-in-order", "env | grep -v CORES > $out"),
    innocent("load", "cat /proc/loadavg > $out"),
    innocent("command-line-of-the-kernel", "cat /proc/cmdline > $out"),
    innocent("mounts", "cat /proc/mounts /proc/self/mountinfo > $out"),
    innocent("boot", "cat /proc/sys/kernel/random/boot_id > $out; grep btime /proc/stat >> $out"),
    innocent("kernel-name", "uname -s > $out; uname -m >> $out"),
    innocent("sorted", "find $tree -type f | sort > $out"),
    innocent("globbed", "cd $tree; echo * > $out"),
    innocent("copied", "cp -r $tree $out"),
    innocent("dated-by-the-recipe", "date -u -d @1700000000 > $out"),
    innocent("time-order", "echo > a; sleep 0.02; echo > b; ls -t a b > $out"),
    innocent("clock-goes-on", "start=$(date +%s); sleep 1; end=$(date +%s); test $end -gt $start; echo > $out"),
    innocent(
        "clock-agrees-with-files",
        "echo > file; now=$(date +%s); then=$(stat -c %Y file); test $((now - then)) -lt 3600; test $now -ge $then; echo > $out",
    ),
    innocent("polling", "end=$(( $(date +%s) + 2 )); while [ $(date +%s) -lt $end ]; do sleep 0.3; done; echo > $out"),
    innocent("parallel-but-ordered", "for n in 1 2 3 4; do (echo $n > part-$n) & done; wait; cat part-* > $out"),
    innocent("temporary-files", "file=$(mktemp); echo text > $file; cat $file > $out; rm $file"),
    innocent(
        "many-files",
        "mkdir $out; for n in $(seq 400); do echo $n > $out/file-$n; done; find $out -type f | sort | wc -l > count; cp count $out",
    ),
    innocent(
        "links-and-modes",
        "mkdir $out; echo > $out/a; ln -s a $out/b; ln $out/a $out/c; chmod 600 $out/a; test $out/a -ef $out/c; ls -l $out > /dev/null",
    ),
    innocent(
        "descriptors",
        "ls /proc/self/fd | wc -l > /dev/null; test -e /dev/stdin; test -e /dev/stdout; exec 5> $out; echo text >&5",
    ),
];

const HEADER: &str = r#"load("//tools:defs.star", "sh")
tree = sh(name = "tree", script = "mkdir $out; for name in b a d c; do echo > $out/$name; done", target = False)
def build(name, script, **kwargs):
    return sh(name = name, script = script, env = {"tree": tree}, **kwargs)
"#;

#[test]
fn leaks_of_a_shell_are_caught_with_the_right_culprit() {
    let Some(workspace) = Workspace::with_tools("") else { return };
    try_all(&workspace, HEADER, &OFFENDERS.iter().collect::<Vec<_>>(), &["--cores", "2"]);
    workspace.verify_store();
}

#[test]
fn innocent_builds_of_a_shell_are_proved() {
    let Some(workspace) = Workspace::with_tools("") else { return };
    try_all(&workspace, HEADER, &INNOCENT.iter().collect::<Vec<_>>(), &["--rounds", "3"]);
}

/// What the machine tells is constant for a sealed build; the rest is still varied.
#[test]
fn sealed_builds_see_constants() {
    let Some(workspace) = Workspace::with_tools("") else { return };
    let sealed = [
        "date-in-seconds",
        "date-of-a-long-build",
        "random-id",
        "uuid",
        "temporary-name",
        "kernel-release",
        "kernel-version",
        "processors",
        "processors-in-proc",
        "jobs",
        "processor-model",
        "memory",
        "time-of-a-file",
        "time-in-a-tar",
        "expired",
    ];
    let still = ["order-of-an-input", "process-number", "inode-number", "file-system-type"];
    let constant = OFFENDERS.iter().filter(|offender| sealed.contains(&offender.class));
    let constant: Vec<Offender> = constant.map(|offender| innocent(offender.class, offender.script)).collect();
    let varied = OFFENDERS.iter().filter(|offender| still.contains(&offender.class));
    let all: Vec<&Offender> = constant.iter().chain(varied).collect();
    assert_eq!(all.len(), sealed.len() + still.len());
    let header = HEADER.replace("env = {\"tree\": tree}", "env = {\"tree\": tree}, sealed = True");
    try_all(&workspace, &header, &all, &["--rounds", "2"]);
}
