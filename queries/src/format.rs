//! Rows as people and programs read them. Decimals are exact and without trailing zeros everywhere; in JSON they are strings,
//! since most readers turn a number into a float.

use std::io::{self, Write};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::{DataType, SchemaRef},
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Csv,
}

pub fn write(out: &mut dyn Write, format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    match format {
        Format::Table => write_table(out, schema, batches),
        Format::Json => write_json(out, schema, batches),
        Format::Csv => write_csv(out, schema, batches),
    }
}

struct Column<'a> {
    data_type: &'a DataType,
    array: &'a ArrayRef,
    formatter: ArrayFormatter<'a>,
}

impl Column<'_> {
    /// The text of a cell; `None` where it is null.
    fn text(&self, row: usize) -> Option<String> {
        if self.array.is_null(row) || matches!(self.data_type, DataType::Null) {
            return None;
        }
        let text = self.formatter.value(row).to_string();
        Some(if is_decimal(self.data_type) { trim_zeros(text) } else { text })
    }
}

fn columns<'a>(batch: &'a RecordBatch, options: &'a FormatOptions<'a>) -> io::Result<Vec<Column<'a>>> {
    batch
        .columns()
        .iter()
        .map(|array| {
            let formatter = ArrayFormatter::try_new(array, options).map_err(io::Error::other)?;
            Ok(Column { data_type: array.data_type(), array, formatter })
        })
        .collect()
}

fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

fn trim_zeros(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn write_table(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    let options = FormatOptions::new();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(schema.fields().iter().map(|field| field.name()));
    for (index, field) in schema.fields().iter().enumerate() {
        if field.data_type().is_numeric()
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut rows = 0;
    for batch in batches {
        let columns = columns(batch, &options)?;
        for row in 0..batch.num_rows() {
            table.add_row(columns.iter().map(|column| column.text(row).unwrap_or_default()));
        }
        rows += batch.num_rows();
    }
    writeln!(out, "{table}")?;
    writeln!(out, "{rows} {}", if rows == 1 { "row" } else { "rows" })
}

fn write_json(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    let options = FormatOptions::new();
    let names: Vec<String> =
        schema.fields().iter().map(|field| serde_json::Value::from(field.name().as_str()).to_string()).collect();
    write!(out, "[")?;
    let mut first = true;
    for batch in batches {
        let columns = columns(batch, &options)?;
        for row in 0..batch.num_rows() {
            write!(out, "{}\n  {{", if first { "" } else { "," })?;
            first = false;
            for (index, (name, column)) in names.iter().zip(&columns).enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                write!(out, "{separator}{name}: {}", json_cell(column, row))?;
            }
            write!(out, "}}")?;
        }
    }
    writeln!(out, "{}]", if first { "" } else { "\n" })
}

fn json_cell(column: &Column<'_>, row: usize) -> String {
    let Some(text) = column.text(row) else {
        return "null".into();
    };
    let bare = column.data_type.is_integer()
        || matches!(column.data_type, DataType::Boolean)
        || (column.data_type.is_floating() && text.parse::<serde_json::Number>().is_ok());
    if bare { text } else { serde_json::Value::from(text).to_string() }
}

fn write_csv(out: &mut dyn Write, schema: &SchemaRef, batches: &[RecordBatch]) -> io::Result<()> {
    let options = FormatOptions::new();
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(schema.fields().iter().map(|field| field.name()))?;
    for batch in batches {
        let columns = columns(batch, &options)?;
        for row in 0..batch.num_rows() {
            writer.write_record(columns.iter().map(|column| column.text(row).unwrap_or_default()))?;
        }
    }
    writer.flush()
}
