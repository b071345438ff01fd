//! The configuration: one TOML file, documented key by key here; the reference in `docs/configuration.md` is generated from
//! these comments (`costhelm config reference`).
//!
//! ```text
//!  defaults ◀── file ◀── environment (COSTHELM_BUS__KIND=kafka)      later ones win
//! ```
//!
//! An unknown key, a wrong type and a value out of range are errors that name file and line. Relative paths are taken from
//! the working directory.

pub mod load;
pub mod reference;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;

/// All there is to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder for the store, the embedded bus and the datasets. One engine at a time may use it.
    pub data_dir: PathBuf,
    /// Names this engine in the `source` of the events it sends.
    pub instance: String,
    pub bus: BusConfig,
    pub topics: Topics,
    pub prices: Prices,
    pub time: TimeConfig,
    pub dedup: DedupConfig,
    pub windows: WindowsConfig,
    pub commit: CommitConfig,
    pub http: HttpConfig,
    /// Budgets, each a `[[budget]]` table.
    #[serde(rename = "budget")]
    pub budgets: Vec<Budget>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: "./costhelm-data".into(),
            instance: "costhelm".into(),
            bus: BusConfig::default(),
            topics: Topics::default(),
            prices: Prices::default(),
            time: TimeConfig::default(),
            dedup: DedupConfig::default(),
            windows: WindowsConfig::default(),
            commit: CommitConfig::default(),
            http: HttpConfig::default(),
            budgets: Vec::new(),
        }
    }
}

/// Where events come from and where alerts and commands go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// `embedded` (a log in the data directory, no broker) or `kafka`.
    pub kind: BusKind,
    /// Where to begin in a partition that was never read: `earliest` or `latest`.
    pub start_at: Start,
    pub kafka: KafkaConfig,
    pub embedded: EmbeddedConfig,
}

impl Default for BusConfig {
    fn default() -> Self {
        BusConfig {
            kind: BusKind::Embedded,
            start_at: Start::Earliest,
            kafka: KafkaConfig::default(),
            embedded: EmbeddedConfig::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    Embedded,
    Kafka,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    Earliest,
    Latest,
}

/// Apache Kafka, or what speaks its protocol. Used with `bus.kind = "kafka"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Comma-separated `host:port` of the brokers to ask first.
    pub brokers: String,
    /// Consumer group that spreads partitions over engines. Positions are kept in the store, not in the group.
    pub group_id: String,
    /// Any further librdkafka property, e.g. `"security.protocol" = "SASL_SSL"`; secrets best through the environment.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        KafkaConfig { brokers: "127.0.0.1:9092".into(), group_id: "costhelm".into(), properties: BTreeMap::new() }
    }
}

/// The log in the data directory. Used with `bus.kind = "embedded"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedConfig {
    /// Partitions of a topic that does not exist yet.
    pub partitions: u16,
    /// How long consumed records are kept.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub retention: Duration,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        EmbeddedConfig { partitions: 4, retention: days(7) }
    }
}

/// Names of the topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Usage events, in.
    pub events: String,
    /// Alerts, out.
    pub alerts: String,
    /// Throttle commands, out; compacted, one key a scope.
    pub throttle: String,
    /// Records that could not be used, out, as they came; empty for none. They are in the `quarantine` dataset either way.
    pub quarantine: String,
    /// Throttle commands once more, in the shape of a squad's own events; empty for none.
    pub squad: String,
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            events: "ravenhelm.cost.events".into(),
            alerts: "ravenhelm.cost.alerts".into(),
            throttle: "ravenhelm.cost.throttle".into(),
            quarantine: "ravenhelm.cost.quarantine".into(),
            squad: String::new(),
        }
    }
}

/// The price book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// Whether the list prices that come with Costhelm are used.
    pub builtin: bool,
    /// Price books of your own, in order; a model in a later one replaces the same model in an earlier one.
    pub books: Vec<PathBuf>,
}

impl Default for Prices {
    fn default() -> Self {
        Prices { builtin: true, books: Vec::new() }
    }
}

/// How event time is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeConfig {
    /// An event further ahead of now than this goes to quarantine, so that one bad clock cannot move the watermark.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub future_skew: Duration,
    /// An event this far behind its partition's newest counts as late. Late events are counted where they belong.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub late_after: Duration,
}

impl Default for TimeConfig {
    fn default() -> Self {
        TimeConfig { future_skew: minutes(10), late_after: minutes(5) }
    }
}

/// Recognising repeated events by (source, event_id).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// How long an id is remembered, on the stream's own clock.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub horizon: Duration,
    /// Most ids remembered; a million take at most 42 MB. Beyond it the oldest are forgotten before their time, and counted.
    pub ids_max: usize,
}

impl Default for DedupConfig {
    fn default() -> Self {
        DedupConfig { horizon: days(30), ids_max: 10_000_000 }
    }
}

/// How long totals stay in memory. SQL reaches the whole ledger whatever is set here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WindowsConfig {
    /// How long minutes are kept behind the newest event.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub minutes_kept: Duration,
    /// How long hours are kept.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub hours_kept: Duration,
    /// How long days are kept.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub days_kept: Duration,
    /// How long months are kept.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub months_kept: Duration,
    /// Most cells in memory, of 100 to 260 bytes each. Beyond it the oldest minutes go first.
    pub cells_max: usize,
    /// How often hourly totals are written to files, so that a restart need not read the whole ledger.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub rollup_interval: Duration,
}

impl Default for WindowsConfig {
    fn default() -> Self {
        WindowsConfig {
            minutes_kept: minutes(3 * 60),
            hours_kept: days(8),
            days_kept: days(62),
            months_kept: days(400),
            cells_max: 2_000_000,
            rollup_interval: minutes(5),
        }
    }
}

/// When an epoch closes. A budget that crosses a threshold closes it at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommitConfig {
    /// At the latest after this time.
    #[serde(with = "human_duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// At the latest with this many rows.
    pub rows: usize,
}

impl Default for CommitConfig {
    fn default() -> Self {
        CommitConfig { interval: Duration::from_secs(1), rows: 250_000 }
    }
}

/// The HTTP server: metrics, health, API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one. There is no authentication: keep it on loopback or behind a proxy that has.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { listen: SocketAddr::from(([127, 0, 0, 1], 8765)), body_bytes_max: 16 << 20 }
    }
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

const fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86_400)
}

/// Durations as people write them: `500ms`, `1s`, `10m`, `7days`.
mod human_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!("{text:?} is no duration; expected e.g. \"500ms\", \"1s\", \"10m\" or \"7days\""))
        })
    }
}
