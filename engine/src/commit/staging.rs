//! Rows to Parquet files, whole and on disk before the store hears of them.
//!
//! A file is written under a name nobody else uses, never overwritten, and synced together with its folder. Until the
//! manifest lists it, it is not part of any dataset; a crash before that leaves an orphan, which recovery removes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::LazyLock,
};

use costhelm_pricing::{EventTime, Meter, Money};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use sha2::{Digest, Sha256};

use crate::{event::columns::meter_column, fold::DatasetRows};

/// A kind of file that the manifest lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dataset {
    Ledger,
    Quarantine,
    RollupHour,
}

impl Dataset {
    pub const ALL: [Dataset; 3] = [Dataset::Ledger, Dataset::Quarantine, Dataset::RollupHour];

    /// The name of its folder and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Dataset::Ledger => "ledger",
            Dataset::Quarantine => "quarantine",
            Dataset::RollupHour => "rollup_hour",
        }
    }
}

/// A file on disk, ready for the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedFile {
    pub dataset: Dataset,
    /// Relative to the data directory, with `/`.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub cost: Money,
    pub time_range: (EventTime, EventTime),
}

/// Columns in which hardly a value repeats: a dictionary would cost time and gain nothing.
const UNIQUE_COLUMNS: [&str; 4] = ["event_id", "trace_id", "span_id", "attributes"];

static PROPERTIES: LazyLock<WriterProperties> = LazyLock::new(|| {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("costhelm ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in UNIQUE_COLUMNS {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    for name in ["event_time", "offset"] {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    for meter in Meter::ALL {
        let column = ColumnPath::from(meter_column(meter));
        properties = properties.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    properties.build()
});

/// Encodes rows as a Parquet file in memory.
pub fn encode(rows: &DatasetRows) -> parquet::errors::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64 << 10);
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.batch.schema(), Some(PROPERTIES.clone()))?;
    writer.write(&rows.batch)?;
    writer.close()?;
    Ok(bytes)
}

/// Writes rows under `data_dir/<dataset>/staged/` and returns once they are on disk.
pub fn stage(data_dir: &Path, dataset: Dataset, rows: &DatasetRows) -> io::Result<StagedFile> {
    let bytes = encode(rows).map_err(io::Error::other)?;
    let folder = format!("{}/staged", dataset.name());
    let path = format!("{folder}/{}.parquet", uuid::Uuid::now_v7());
    let folder = data_dir.join(folder);
    fs::create_dir_all(&folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).open(data_dir.join(&path))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    File::open(&folder)?.sync_all()?;
    Ok(StagedFile {
        dataset,
        path,
        rows: rows.batch.num_rows() as u64,
        bytes: bytes.len() as u64,
        sha256: sha256_hex(&bytes),
        cost: rows.cost,
        time_range: rows.time_range,
    })
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
