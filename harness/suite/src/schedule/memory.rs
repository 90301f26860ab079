//! How much memory there is: of the machine, of the control groups that this process is in, and of its own limit.

use std::fs;
use std::path::Path;

/// What may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// By anything: the least of all limits.
    pub total: u64,
    /// More than is used now.
    pub now: u64,
}

/// Reads what the system says; `None` where it says nothing.
pub fn room() -> Option<Room> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let mut room = Room { total: kibibytes(&info, "MemTotal:")?, now: kibibytes(&info, "MemAvailable:")? };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for (limit, used) in groups.lines().flat_map(group_files) {
        let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let (Some(limit), Some(used)) = (number(limit), number(used)) else { continue };
        // version 1 says "no limit" with a number that no machine has
        room.total = room.total.min(limit);
        room.now = room.now.min(limit.saturating_sub(used));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = address_space(&limits) {
        room = Room { total: room.total.min(limit), now: room.now.min(limit) };
    }
    Some(room)
}

/// A line of `/proc/meminfo`, in bytes.
fn kibibytes(info: &str, key: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Files with the limit and the use of the control group of a line of `/proc/self/cgroup` and of those above it.
fn group_files(line: &str) -> Vec<(String, String)> {
    let mut fields = line.splitn(3, ':');
    let (_, Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { return Vec::new() };
    let (root, limit, used) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
        list if list.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        }
        _ => return Vec::new(),
    };
    let above = Path::new(path).ancestors().filter_map(Path::to_str);
    above
        .map(|group| format!("{root}{}", group.trim_end_matches('/')))
        .map(|group| (format!("{group}/{limit}"), format!("{group}/{used}")))
        .collect()
}

/// The soft limit of the address space, if there is one.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How many processes the system has killed because memory ran out; it counts up.
pub fn kills() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    let line = counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_much_there_is() {
        let room = room().unwrap();
        assert!(room.total > 1 << 28 && room.now > 1 << 26 && room.now <= room.total, "{room:?}");
        assert!(kills().is_some());
    }

    #[test]
    fn limits_are_read_as_the_system_writes_them() {
        assert_eq!(kibibytes("MemTotal:       24575488 kB\nMemAvailable: 12 kB\n", "MemAvailable:"), Some(12 * 1024));
        assert_eq!(
            group_files("0::/user.slice/a"),
            ["/user.slice/a", "/user.slice", ""].map(|group| (
                format!("/sys/fs/cgroup{group}/memory.max"),
                format!("/sys/fs/cgroup{group}/memory.current")
            ))
        );
        let old = group_files("4:cpu,memory:/job");
        assert_eq!(old[0].0, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes");
        assert!(group_files("3:cpuset:/job").is_empty() && group_files("nonsense").is_empty());
        let limits = |value| {
            format!(
                "Max cpu time  unlimited  unlimited  seconds\nMax address space         {value}  unlimited  bytes\n"
            )
        };
        assert_eq!(address_space(&limits("1572864000")), Some(1_572_864_000));
        assert_eq!(address_space(&limits("unlimited")), None);
    }
}
