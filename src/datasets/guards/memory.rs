//! Whether a version can be opened beside the live one without the system ending the process for want of memory.
//!
//! What can be had is what the kernel says is available, or what a control group that the process is in leaves below
//! its limit, whichever is less. Page cache that can be dropped counts as free in both.
//!
//! Cost: four small files read, twice an upload.

use std::path::{Path, PathBuf};

use super::super::manifest::Check;
use super::{check, passed};
use crate::config::Guards;

/// What an open version takes beyond its file: segment names, the last huge page.
const BEYOND_FILE: u64 = 4 << 20;

/// What a version needs, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Room {
    /// What opening it takes, bytes.
    pub(in super::super) needed: u64,
    /// What is to be left then.
    pub(in super::super) spare: u64,
    /// What can be had; `None` where the system does not say, or is not asked.
    pub(in super::super) available: Option<u64>,
}

impl Room {
    /// Whether there is enough. In doubt there is.
    pub(in super::super) fn enough(&self) -> bool {
        self.available
            .is_none_or(|available| self.needed.saturating_add(self.spare) <= available)
    }
}

/// Looks whether a version whose file is so long can be opened now.
pub(in super::super) fn room(guards: &Guards, file_bytes: u64) -> Room {
    Room {
        needed: file_bytes.saturating_add(BEYOND_FILE),
        spare: guards.spare_memory,
        available: if guards.enabled {
            available(Path::new("/"))
        } else {
            None
        },
    }
}

pub(super) fn memory(room: &Room) -> Check {
    const NAME: &str = "memory";
    let Some(available) = room.available else {
        return passed(
            NAME,
            "not known: the system does not say how much memory is available",
        );
    };
    check(
        NAME,
        room.enough(),
        format!(
            "opened beside the live version it takes {}; {} can be had, of which {} must be left",
            shown(room.needed),
            shown(available),
            shown(room.spare)
        ),
        "give the service more memory, or unload what it shares its memory with, then activate this version with force",
    )
}

/// Bytes as people read them.
pub(in super::super) fn shown(bytes: u64) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// What can be had, by the files below `root`.
fn available(root: &Path) -> Option<u64> {
    let system = meminfo(root);
    let groups = CGROUPS
        .iter()
        .filter_map(|version| version.left(root))
        .min();
    [system, groups].into_iter().flatten().min()
}

fn meminfo(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The files of one version of control groups.
struct Cgroups {
    /// What the controllers of its line in `/proc/self/cgroup` are.
    controller: &'static str,
    folder: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The lines of `memory.stat` that count page cache which can be dropped, as `MemAvailable` counts it.
    droppable: [&'static str; 2],
}

const CGROUPS: [Cgroups; 2] = [
    Cgroups {
        controller: "",
        folder: "sys/fs/cgroup",
        limit: "memory.max",
        usage: "memory.current",
        droppable: ["inactive_file ", "active_file "],
    },
    Cgroups {
        controller: "memory",
        folder: "sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        droppable: ["total_inactive_file ", "total_active_file "],
    },
];

impl Cgroups {
    /// What the tightest group leaves of those that the process is in; `None` where none has a limit.
    fn left(&self, root: &Path) -> Option<u64> {
        let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let path = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_ours = controllers.split(',').any(|c| c == self.controller);
            is_ours.then_some(path)
        })?;
        let top = root.join(self.folder);
        // In a container the path may be that of the host, and the group be mounted as the top.
        let own = Path::new(path).components().filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut folder: PathBuf = top.join(own.collect::<PathBuf>());
        let mut least = None;
        loop {
            least = [least, self.left_in(&folder)].into_iter().flatten().min();
            if folder == top || !folder.pop() {
                return least;
            }
        }
    }

    fn left_in(&self, folder: &Path) -> Option<u64> {
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?;
        let used = number(self.usage)?;
        let stat = read("memory.stat").unwrap_or_default();
        let count = |name: &str| {
            let found = stat.lines().find_map(|line| line.strip_prefix(name));
            found.and_then(|count| count.trim().parse::<u64>().ok())
        };
        let droppable = self.droppable.into_iter().filter_map(count);
        let droppable = droppable.fold(0u64, u64::saturating_add);
        Some(limit.saturating_sub(used.saturating_sub(droppable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], expect: Option<u64>) {
        assert_eq!(available(system(files).path()), expect, "{files:?}");
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       2048 kB\nMemFree:  1 kB\nMemAvailable:   1000 kB\n",
    );

    #[test]
    fn the_kernel_says_what_is_available() {
        check(&[MEMINFO], Some(1_024_000));
        check(&[], None);
        check(&[("proc/meminfo", "MemTotal: 1 kB\n")], None);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let own = ("proc/self/cgroup", "0::/kith.slice/a\n");
        let max = ("sys/fs/cgroup/kith.slice/a/memory.max", "max\n");
        let current = ("sys/fs/cgroup/kith.slice/a/memory.current", "100\n");
        let above = ("sys/fs/cgroup/kith.slice/memory.max", "5000\n");
        let used = ("sys/fs/cgroup/kith.slice/memory.current", "3000\n");
        let stat = (
            "sys/fs/cgroup/kith.slice/memory.stat",
            "anon 1\ninactive_file 400\nactive_file 100\n",
        );
        check(&[MEMINFO, own, max, current], Some(1_024_000));
        check(&[MEMINFO, own, max, current, above, used], Some(2000));
        check(&[MEMINFO, own, max, current, above, used, stat], Some(2500));
        check(
            &[
                own,
                above,
                ("sys/fs/cgroup/kith.slice/memory.current", "9000"),
            ],
            Some(0),
        );
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_too_also_as_a_container_sees_it() {
        let own = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n",
        );
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
        let used = ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n");
        let stat = (
            "sys/fs/cgroup/memory/memory.stat",
            "inactive_file 1\ntotal_inactive_file 700\n",
        );
        check(&[MEMINFO, own, limit, used, stat], Some(2700));
    }

    #[test]
    fn there_is_room_up_to_what_must_be_left() {
        let room = |available| Room {
            needed: 60,
            spare: 40,
            available,
        };
        assert!(room(Some(100)).enough() && room(None).enough());
        assert!(!room(Some(99)).enough());
        let held = memory(&room(Some(99)));
        assert!(!held.ok && held.detail.contains("with force"), "{held:?}");
    }
}
