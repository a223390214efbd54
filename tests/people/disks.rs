//! Disks that lose power, are slow, or may not be written on any more. Wants root, a loop device and ext4: `scripts/long-tests disks`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Acknowledged, CART, Client, Process, with};

/// A file system of its own, in a file.
struct Disk {
    dir: tempfile::TempDir,
}

fn run(command: &str, args: &[&str]) {
    let done = Command::new(command).args(args).output();
    let done = done.unwrap_or_else(|error| panic!("{command}: {error}"));
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command} {args:?}: {told}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

impl Disk {
    fn new() -> Self {
        let disk = Self {
            dir: tempfile::tempdir().expect("a folder"),
        };
        std::fs::create_dir(disk.mounted()).expect("a folder");
        run("truncate", &["-s", "512M", text(&disk.image())]);
        run("mkfs.ext4", &["-q", text(&disk.image())]);
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    fn data(&self) -> PathBuf {
        self.mounted().join("data")
    }

    fn mount(&self) {
        let (image, mounted) = (self.image(), self.mounted());
        run(
            "mount",
            &["-o", "loop,errors=remount-ro", text(&image), text(&mounted)],
        );
    }

    fn unmount(&self) {
        run("umount", &[text(&self.mounted())]);
    }

    /// What is not synced is lost after `wait`, and nothing is written any more: the ioctl EXT4_IOC_SHUTDOWN, without a flush of the log.
    /// What is acknowledged while that is under way does not count: a sync that it overtakes may be told that all is well.
    fn lose_power(&self, wait: Duration, is_lost: &AtomicBool) {
        let script = "import fcntl, os, struct, sys\n\
            of = os.open(sys.argv[1], os.O_RDONLY)\n\
            print('ready', flush=True)\n\
            sys.stdin.readline()\n\
            fcntl.ioctl(of, 0x8004587d, struct.pack('I', 2))";
        let mut command = Command::new("python3");
        let command = command.args(["-c", script, text(&self.mounted())]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = command.spawn().expect("python3 runs");
        let mut told = BufReader::new(python.stdout.take().expect("its output"));
        let _ = told.read_line(&mut String::new()).expect("ready");
        thread::sleep(wait);
        is_lost.store(true, SeqCst);
        let mut go = python.stdin.take().expect("its input");
        go.write_all(b"\n").expect("heard");
        assert!(python.wait().expect("it ends").success());
    }

    /// The file system finds an error in itself, and may only be read from here on.
    fn become_read_only(&self) {
        let mut find = Command::new("findmnt");
        let find = find.args(["-no", "SOURCE", text(&self.mounted())]);
        let found = find.output().expect("findmnt runs").stdout;
        let device = String::from_utf8_lossy(&found).trim().replace("/dev/", "");
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(trigger, "1").expect("an error of the file system");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mounted()).status();
    }
}

fn begun(disk: &Disk) -> (Process, Client) {
    let (process, client) = Process::run(&disk.data(), None).expect("it runs");
    client.campaigns(&[]);
    client.csv("site/versions/1", CART);
    (process, client)
}

/// Power is lost at any moment while updates, links, erasures and opt-outs come in: what was acknowledged is there.
#[test]
#[ignore = "takes minutes, root and a loop device; scripts/long-tests runs it"]
#[expect(clippy::print_stdout, reason = "what it came to is to be looked at")]
fn power_loss_loses_nothing_acknowledged() {
    let rounds = std::env::var("KITH_ROUNDS").map_or(40, |text| text.parse().expect("a number"));
    let disk = Disk::new();
    let (process, client) = begun(&disk);
    let mut sent = Acknowledged::default();
    sent.send(&client, "before");
    drop((process, client));
    let before = sent.wanted.len() + sent.gone.len();
    for round in 0..rounds {
        let (process, client) = Process::run(&disk.data(), None).expect("it runs");
        // From before anything was sent to after all of it.
        let wait = Duration::from_millis(5 + 37 * round % 400);
        let is_lost = Arc::clone(&sent.is_lost);
        is_lost.store(false, SeqCst);
        thread::scope(|scope| {
            scope.spawn(|| {
                disk.lose_power(wait, &is_lost);
            });
            for part in 0..6 {
                sent.send(&client, &format!("{round}-{part}"));
            }
        });
        drop((process, client));
        disk.unmount();
        disk.mount();
        let (process, client) = Process::run(&disk.data(), None).expect("it comes back");
        sent.check(&client, &format!("round {round}"));
        drop((process, client));
    }
    let all = sent.wanted.len() + sent.gone.len();
    println!(
        "{rounds} losses of power: {} of {all} acknowledged since the first",
        all - before
    );
    assert!(all > before, "something was acknowledged meanwhile");
}

/// Every sync takes half a second: updates wait for it, and bids do not.
#[test]
#[ignore = "takes a while, and strace; scripts/long-tests runs it"]
#[expect(clippy::print_stdout, reason = "what it came to is to be looked at")]
fn a_slow_disk_delays_no_bid() {
    let dir = tempfile::tempdir().expect("a folder");
    let (process, client) = Process::run(dir.path(), None).expect("it runs");
    client.campaigns(&[]);
    client.csv("site/versions/1", CART);
    drop((process, client));
    let slow = "inject=fdatasync,fsync:delay_enter=500000";
    let (process, client) = Process::run(dir.path(), Some(slow)).expect("it runs");
    let (stop, mut longest) = (AtomicBool::new(false), Duration::ZERO);
    let calls = thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, stop) = (&client, &stop);
                scope.spawn(move || {
                    let mut took = Vec::new();
                    for n in 0..10 {
                        let begun = Instant::now();
                        let row =
                            with(&format!("slow-{writer}-{n}"), json!({"add": ["site/cart"]}));
                        client.updates(&[row]);
                        took.push(begun.elapsed());
                    }
                    stop.store(true, SeqCst);
                    took
                })
            })
            .collect();
        while !stop.load(SeqCst) {
            let begun = Instant::now();
            assert!(client.is_wanted("a"));
            longest = longest.max(begun.elapsed());
        }
        let all = writers.into_iter().map(|one| one.join().expect("no panic"));
        all.flatten().collect::<Vec<Duration>>()
    });
    let shortest = calls.iter().min().expect("some");
    println!(
        "{} calls, the shortest {shortest:?}; the longest bid {longest:?}",
        calls.len()
    );
    assert!(*shortest > Duration::from_millis(450) && longest < Duration::from_millis(250));
    drop((process, client));
    let (_process, client) = Process::run(dir.path(), None).expect("it comes back");
    for (writer, n) in (0..4).flat_map(|writer| (0..10).map(move |n| (writer, n))) {
        assert!(
            client.is_wanted(&format!("slow-{writer}-{n}")),
            "{writer}-{n}"
        );
    }
}

/// The disk may only be read any more: requests are answered, updates with 5xx, and once it can be written again all is there.
#[test]
#[ignore = "takes root and a loop device; scripts/long-tests runs it"]
fn a_disk_that_became_read_only_loses_nothing() {
    let disk = Disk::new();
    let (process, client) = begun(&disk);
    let mut sent = Acknowledged::default();
    sent.send(&client, "before");
    disk.become_read_only();
    let row = with("late", json!({"add": ["site/cart"]})).to_string();
    for _ in 0..20 {
        let (status, answer) = client.call("POST", "/v1/users", &row);
        assert!(status == 503 || status == 429, "{status}: {answer}");
        // Answered, but before long not bid on: the ledger is on the same disk, and money that cannot be journalled is not spent.
        let bids = client.bids(&[("ifa", "a")]);
        assert!(bids.is_empty() || bids == ["cart"], "{bids:?}");
        assert_eq!(client.bids(&[("ifa", "late")]), [""; 0]);
    }
    drop((process, client));
    disk.unmount();
    // 1 says that errors were mended.
    let mend = "e2fsck -fp \"$0\" || [ $? -eq 1 ]";
    run("sh", &["-c", mend, text(&disk.image())]);
    disk.mount();
    let (_process, client) = Process::run(&disk.data(), None).expect("it comes back");
    sent.check(&client, "afterwards");
    client.updates(&[with("late", json!({"add": ["site/cart"]}))]);
    assert!(client.is_wanted("late"));
}
