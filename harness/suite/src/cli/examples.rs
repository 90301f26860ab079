//! What commands look like, for their `--help`.

pub const RUN: &str = "\
Examples:
  harness run experiments/quickstart.yaml
  harness run experiments/table1_language.yaml --scale sample --data DIR --jobs 2
  harness run experiments/recall.yaml --only 'model=hybrid,seed!=3'
  harness run experiments/recall.yaml --set train.learning_rate=1e-2 --name recall_fast";

pub const PLAN: &str = "\
Examples:
  harness plan experiments/ablation_lambda.yaml --only 'model=bim,seed=1'
  harness plan experiments/table1_language.yaml --scale paper --data DIR";

pub const REPORT: &str = "\
Examples:
  harness report runs/quickstart
  harness report reports/results/2026-11-28/*.parquet --out page
  harness report runs/quickstart --format tex --metrics auc_roc_macro";

pub const COMPARE: &str = "\
Examples:
  harness compare runs/before runs/after
  harness compare reports/baselines/ci.parquet runs/ci --effect 0.01";

pub const GATE: &str = "\
Examples:
  harness gate --baseline reports/baselines/ci.parquet runs/ci
  harness gate --baseline reports/baselines/ci.parquet --junit gate.xml --summary gate.md runs/ci";

pub const BASELINE: &str = "\
Examples:
  harness baseline runs/ci --out reports/baselines/ci.parquet --count-instructions";

pub const REPRODUCE: &str = "\
Examples:
  harness reproduce runs/quickstart/cells/CELL";

pub const EXPLAIN: &str = "\
Examples:
  harness explain train.segment
  harness explain bim.pre.levels";

pub const SLURM: &str = "\
Examples:
  harness launch slurm experiments/ablation_lambda.yaml --out /shared/runs --data /shared/data";
