//! Arrays on a real Slurm of one node, started here: Debian's `slurm-wlm` and `munge`, as root. Where they are not installed the tests
//! say so and pass.

mod common;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, stderr, stdout};
use rows::results::ResultRow;

/// A cluster of this machine; it ends with the value.
struct Cluster(tempfile::TempDir);

impl Cluster {
    /// Starts its daemons; `None`, with the reason printed, where that is not possible.
    fn start() -> Option<Self> {
        let skip = |why: &str| {
            println!("skipped: {why}");
            None::<Self>
        };
        for program in ["munged", "slurmctld", "slurmd", "sbatch"] {
            if !["/usr/sbin", "/usr/bin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).exists()) {
                return skip(&format!("{program} is not installed (Debian: slurm-wlm munge)"));
            }
        }
        let id = Command::new("id").arg("-u").output().expect("id");
        if stdout(&id).trim() != "0" {
            return skip("the daemons need root");
        }
        let cluster = Self(tempfile::tempdir().expect("temporary folder"));
        let root = cluster.0.path().display().to_string();
        let host = stdout(&Command::new("hostname").arg("-s").output().expect("hostname")).trim().to_owned();
        let port = 20_000 + std::process::id() % 20_000;
        let config = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={port}\nSlurmdPort={}\nAuthType=auth/munge\n\
             AuthInfo=socket={root}/munge.sock\nSlurmUser=root\nSlurmdUser=root\nStateSaveLocation={root}/state\n\
             SlurmdSpoolDir={root}/spool\nSlurmctldPidFile={root}/ctld.pid\nSlurmdPidFile={root}/d.pid\n\
             SlurmctldLogFile={root}/ctld.log\nSlurmdLogFile={root}/d.log\nProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             JobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\nMpiDefault=none\n\
             ReturnToService=2\nMaxArraySize=101\nMinJobAge=300\nKillWait=5\nJobRequeue=1\n\
             SchedulerParameters=sched_interval=1,batch_sched_delay=0,defer,requeue_delay=0\n\
             NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN\n\
             PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            port + 20_001
        );
        let file = |name: &str| cluster.0.path().join(name);
        std::fs::write(file("slurm.conf"), config).expect("written");
        for folder in ["state", "spool"] {
            std::fs::create_dir(file(folder)).expect("a folder");
        }
        let mut key = std::fs::File::create(file("munge.key")).expect("a file");
        key.write_all(&[7; 1024]).expect("written");
        for (path, mode) in [(cluster.0.path().to_owned(), 0o755), (file("munge.key"), 0o400)] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(path, mode).expect("permissions");
        }
        let munge =
            [("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")];
        let munge = munge.map(|(option, end)| format!("--{option}={root}/munge.{end}"));
        let start = |program: &str, arguments: &[String]| {
            let mut command = Command::new(program);
            command.args(arguments).env("SLURM_CONF", format!("{root}/slurm.conf"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let config = format!("{root}/slurm.conf");
        let mut munge = munge.to_vec();
        munge.push("--force".into());
        let daemons = [
            ("munged", munge),
            ("slurmctld", vec!["-f".into(), config.clone()]),
            ("slurmd", vec!["-f".into(), config, "-N".into(), host]),
        ];
        for (program, arguments) in daemons {
            if !start(program, &arguments) {
                return skip(&format!("{program} does not start here"));
            }
        }
        let clock = Instant::now();
        while !stdout(&cluster.command("sinfo", &["-h", "-o", "%t"])).contains("idle") {
            if clock.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(file("ctld.log")).unwrap_or_default();
                return skip(&format!("its node does not come up:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(cluster)
    }

    fn on(&self, command: &mut Command) -> Output {
        command.env("SLURM_CONF", self.0.path().join("slurm.conf")).output().expect("starts")
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        self.on(Command::new(program).args(arguments))
    }

    /// Waits until nothing is in the queue.
    fn wait(&self, at_most: Duration) {
        let clock = Instant::now();
        while !stdout(&self.command("squeue", &["-h"])).trim().is_empty() {
            assert!(clock.elapsed() < at_most, "{}", stdout(&self.command("squeue", &[])));
            std::thread::sleep(Duration::from_millis(250));
        }
    }

    fn launch(&self, folder: &Folder, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.current_dir(folder.path()).args(["launch", "slurm", "grid.yaml", "--device", "cpu", "--out", "runs"]);
        self.on(command.args(arguments))
    }

    fn collect(&self, folder: &Folder, arguments: &[&str]) -> Output {
        self.on(folder.command("runs").args(arguments))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for pid in ["d.pid", "ctld.pid", "munge.pid"] {
            let path = self.0.path().join(pid);
            if let Ok(pid) = std::fs::read_to_string(path) {
                let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
            }
        }
    }
}

const GRID: &str = "\
experiment: small
task: {kind: cardio, generate: 60, frame: 20}
models: [{kind: lstm, width: 8, layers: 1}]
train: {streams: 4, segment: 25, seen: 3_000, curve_points: 1, eval_streams: 4}
resources: {time: \"00:10:00\", cells_per_task: 1}
";

fn outcomes(folder: &Folder, outcome: &str) -> Vec<ResultRow> {
    folder.results("runs").into_iter().filter(|row| row.outcome == outcome).collect()
}

fn cells(rows: &[ResultRow]) -> usize {
    rows.iter().map(|row| &row.cell).collect::<std::collections::BTreeSet<_>>().len()
}

/// Two hundred cells in arrays of at most 101 tasks: submitted, collected, and what is missing submitted again; then a task that a person
/// cancels, one that is requeued under its number, and one that runs into its time.
#[test]
fn arrays_on_a_real_cluster() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = Folder::new();
    let seeds = |n: u32| (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    folder.grid(&format!("{GRID}seeds: [{}]\n", seeds(200)));
    let dry = cluster.launch(&folder, &["--dry-run", "--cache", "/fast disk"]);
    assert!(stdout(&dry).contains("\nexport HARNESS_CACHE='/fast disk'\n"), "{}", stdout(&dry));
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(
        stdout(&dry).contains("#SBATCH --array=0-100\n") && stdout(&dry).contains("#SBATCH --array=0-98\n"),
        "{}",
        stdout(&dry)
    );
    assert!(stdout(&cluster.command("squeue", &["-h"])).trim().is_empty(), "nothing was submitted");
    let launched = cluster.launch(&folder, &[]);
    assert_eq!(launched.status.code(), Some(0), "{}", stderr(&launched));
    assert_eq!(stdout(&launched).matches("submitted").count(), 2, "{}", stdout(&launched));
    // while they wait nothing is submitted twice, and `run` leaves them alone
    let again = cluster.launch(&folder, &[]);
    assert!(!stdout(&again).contains("submitted"), "{}", stdout(&again));
    cluster.wait(Duration::from_secs(400));
    let collected = cluster.collect(&folder, &[]);
    assert_eq!(collected.status.code(), Some(0), "{}", stderr(&collected));
    assert_eq!(stderr(&collected).matches("finished before").count(), 200);
    assert_eq!(cells(&outcomes(&folder, "completed")), 200);

    // cells that are long enough to be met running
    folder.grid(&format!("{GRID}seeds: [1, 2, 3]\n").replace("seen: 3_000", "seen: 30_000_000"));
    let launched = cluster.launch(&folder, &["--name", "long"]);
    assert_eq!(launched.status.code(), Some(0), "{}", stderr(&launched));
    let job = stdout(&launched).trim().rsplit(' ').next().expect("a number").to_owned();
    let clock = Instant::now();
    let running = || stdout(&cluster.command("squeue", &["-h", "-r", "-j", &job, "-t", "RUNNING", "-o", "%K"]));
    while running().lines().count() < 2 {
        assert!(clock.elapsed() < Duration::from_secs(60), "{}", running());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    let requeued = cluster.command("scontrol", &["requeue", &format!("{job}_1")]);
    assert!(requeued.status.success(), "{}", stderr(&requeued));
    // as a kernel would that has no memory left
    let file = folder.path().join("runs/long/slurm/0-0.cells");
    let first = std::fs::read_to_string(file).expect("cells").lines().next().expect("a task").to_owned();
    let worker = format!("{}/runs/long/plan.json --cell {first} ", folder.path().display());
    assert!(Command::new("pkill").args(["-KILL", "-f", &worker]).status().expect("pkill").success());
    std::thread::sleep(Duration::from_secs(3));
    let collected = cluster.collect(&folder, &["--name", "long", "--only", "seed=3|2"]);
    assert_eq!(collected.status.code(), Some(1), "{}", stderr(&collected));
    assert!(stderr(&collected).contains(&format!("Slurm task {job}_")), "{}", stderr(&collected));
    let log = |seed: u64| {
        let rows = rows::results::read_results(&folder.path().join("runs/long/results.parquet")).expect("results");
        let row = rows.into_iter().find(|row| row.seed == seed).expect("a row");
        let log = folder.path().join("runs/long/cells").join(&row.cell).join("log.txt");
        (row, std::fs::read_to_string(log).unwrap_or_default())
    };
    let (killed, _) = log(1);
    assert_eq!(killed.outcome, "failed", "{killed:?}");
    let reason = killed.reason.unwrap_or_default();
    assert!(reason.contains(&format!("Slurm task {job}_0 ended with exit code")), "{reason}");
    let clock = Instant::now();
    while !log(2).1.contains("continuing at update") {
        assert!(clock.elapsed() < Duration::from_secs(240), "not resumed after its requeue: {}", log(2).1);
        // Slurm waits two minutes of its own accord
        cluster.command("scontrol", &["update", &format!("JobId={job}_1"), "StartTime=now"]);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(cluster.command("scancel", &[&job]).status.success());
    cluster.wait(Duration::from_secs(60));
    let relaunched = cluster.launch(&folder, &["--name", "long", "--dry-run"]);
    // the third may have come to its end while the second waited for its requeue
    let arrays = ["#SBATCH --array=0-1\n", "#SBATCH --array=0-2\n"];
    assert!(
        arrays.iter().any(|array| stdout(&relaunched).contains(array)),
        "the killed and the cancelled one are to be continued: {}",
        stderr(&relaunched)
    );
}
