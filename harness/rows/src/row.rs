//! Rows as Parquet columns: which column each field of an event is, written once for both directions.
//!
//! `u64` is `UInt64`, `f64` is `Float64`, `String` is `Utf8`, and `Vec<f64>` and `Vec<u64>` are
//! `List<Float64>` and `List<UInt64>`; an `Option` makes its
//! column nullable. A column has its field's name, and columns stand in the order of the fields.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow_array::builder::{Float64Builder, ListBuilder, UInt64Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::{EvalRow, LayerRow, PredictionRow, StepRow};
use data::error::{At, DataError, DataResult};

/// A type that a column can hold.
pub trait Value: Sized {
    /// Arrow type of the column.
    fn data_type() -> DataType;

    /// Whether the column may hold nulls.
    const NULLABLE: bool = false;

    /// A column of these values.
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;

    /// The values of a column of this type; `None` if it is of another type or holds a null where none may be.
    fn values(array: &dyn Array) -> Option<Vec<Self>>;
}

impl Value for u64 {
    fn data_type() -> DataType {
        DataType::UInt64
    }

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.copied().collect::<UInt64Array>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        array.as_primitive_opt::<UInt64Type>()?.iter().collect()
    }
}

impl Value for Option<u64> {
    fn data_type() -> DataType {
        DataType::UInt64
    }

    const NULLABLE: bool = true;

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.copied().collect::<UInt64Array>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        Some(array.as_primitive_opt::<UInt64Type>()?.iter().collect())
    }
}

impl Value for f64 {
    fn data_type() -> DataType {
        DataType::Float64
    }

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.copied().collect::<Float64Array>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        array.as_primitive_opt::<Float64Type>()?.iter().collect()
    }
}

impl Value for Option<f64> {
    fn data_type() -> DataType {
        DataType::Float64
    }

    const NULLABLE: bool = true;

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.copied().collect::<Float64Array>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        Some(array.as_primitive_opt::<Float64Type>()?.iter().collect())
    }
}

impl Value for String {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.map(Some).collect::<StringArray>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        array.as_string_opt::<i32>()?.iter().map(|value| value.map(str::to_owned)).collect()
    }
}

impl Value for Option<String> {
    fn data_type() -> DataType {
        DataType::Utf8
    }

    const NULLABLE: bool = true;

    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
        Arc::new(values.map(Option::as_deref).collect::<StringArray>())
    }

    fn values(array: &dyn Array) -> Option<Vec<Self>> {
        Some(array.as_string_opt::<i32>()?.iter().map(|value| value.map(str::to_owned)).collect())
    }
}

/// Lists without nulls, of numbers of one type.
macro_rules! list {
    ($number:ty, $builder:ty, $data_type:expr) => {
        impl Value for Vec<$number> {
            fn data_type() -> DataType {
                DataType::List(Arc::new(item($data_type)))
            }

            fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let mut lists = ListBuilder::new(<$builder>::new()).with_field(item($data_type));
                for list in values {
                    lists.values().append_slice(list);
                    lists.append(true);
                }
                Arc::new(lists.finish())
            }

            fn values(array: &dyn Array) -> Option<Vec<Self>> {
                array.as_list_opt::<i32>()?.iter().map(|list| <$number>::values(list?.as_ref())).collect()
            }
        }
    };
}

list!(f64, Float64Builder, DataType::Float64);
list!(u64, UInt64Builder, DataType::UInt64);

/// An item of a list.
fn item(data_type: DataType) -> Field {
    Field::new("item", data_type, false)
}

/// A type whose values are rows of a table.
pub trait Row: Sized {
    /// Name of the table, and of its file without the extension.
    const NAME: &'static str;

    /// The columns, built once.
    fn schema() -> SchemaRef;

    /// The rows as columns.
    ///
    /// # Errors
    /// None in practice: columns made from the same rows have the same length.
    fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError>;

    /// The rows of a batch read from `path`, which the errors name.
    ///
    /// # Errors
    /// `Corrupt` if a column is missing, of another type, or null where none may be.
    fn from_batch(path: &Path, batch: &RecordBatch) -> DataResult<Vec<Self>>;
}

/// The column of a field.
pub fn field<V: Value>(name: &str) -> Field {
    Field::new(name, V::data_type(), V::NULLABLE)
}

/// Reads the column `name` of a batch that came from `path`.
///
/// # Errors
/// `Corrupt` if the column is missing, of another type, or null where none may be.
pub fn column<V: Value>(path: &Path, batch: &RecordBatch, name: &str) -> DataResult<Vec<V>> {
    let nulls = if V::NULLABLE { "" } else { " without nulls" };
    let refuse = |got: String| {
        DataError::corrupt(path, At::File, format!("a column `{name}` of type {}{nulls}", V::data_type()), got)
    };
    let array = batch.column_by_name(name).ok_or_else(|| refuse("no such column".into()))?;
    V::values(array).ok_or_else(|| refuse(format!("type {} with {} nulls", array.data_type(), array.null_count())))
}

/// Implements [`Row`] for a struct by the list of its fields.
macro_rules! row {
    ($row:ident, $name:literal, { $($field:ident: $type:ty),+ $(,)? }) => {
        impl Row for $row {
            const NAME: &'static str = $name;

            fn schema() -> SchemaRef {
                static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
                SCHEMA.get_or_init(|| Arc::new(Schema::new(vec![$(field::<$type>(stringify!($field))),+]))).clone()
            }

            fn to_batch(rows: &[Self]) -> Result<RecordBatch, ArrowError> {
                let columns = vec![$(<$type>::array(rows.iter().map(|row| &row.$field))),+];
                RecordBatch::try_new(Self::schema(), columns)
            }

            fn from_batch(path: &Path, batch: &RecordBatch) -> DataResult<Vec<Self>> {
                $(let mut $field = column::<$type>(path, batch, stringify!($field))?.into_iter();)+
                // All columns of a batch have as many values as it has rows, so this stops behind the last row.
                Ok(std::iter::from_fn(|| Some(Self { $($field: $field.next()?),+ })).collect())
            }
        }
    };
}

row!(StepRow, "steps", {
    step: u64,
    seen: u64,
    elapsed_s: f64,
    loss: Option<f64>,
    learning_rate: f64,
    grad_norm: f64,
    update_norm: f64,
    state_bytes: Option<u64>,
    live_bytes: Option<u64>,
    peak_bytes: Option<u64>,
    rss_bytes: Option<u64>,
    device_bytes: Option<u64>,
    spike_sparsity: Option<f64>,
    activation_sparsity: Option<f64>,
    connection_sparsity: Option<f64>,
    macs_forward: Option<u64>,
    acs_forward: Option<u64>,
    macs_learning: Option<u64>,
    acs_learning: Option<u64>,
    macs_dense: Option<u64>,
    op_coverage: Option<f64>,
    energy_forward_pj: Option<f64>,
    energy_learning_pj: Option<f64>,
    elementwise_forward: Option<u64>,
    elementwise_learning: Option<u64>,
    activation_macs_forward: Option<u64>,
    activation_macs_learning: Option<u64>,
    neuron_updates: Option<u64>,
    weight_words_forward: Option<u64>,
    weight_words_learning: Option<u64>,
    state_words_forward: Option<u64>,
    state_words_learning: Option<u64>,
    operations_reverse: Option<u64>,
    operations_traces: Option<u64>,
    operations_stdp: Option<u64>,
    operations_pruning: Option<u64>,
    operations_optimizer: Option<u64>,
    energy_forward_with_traffic_pj: Option<f64>,
    energy_learning_with_traffic_pj: Option<f64>,
    energy_coverage_forward: Option<f64>,
    energy_coverage_learning: Option<f64>,
    neurobench_macs: Option<u64>,
    neurobench_acs: Option<u64>,
    spikingjelly_macs: Option<u64>,
    spikingjelly_acs: Option<u64>,
    syops_macs: Option<u64>,
    syops_acs: Option<u64>,
    data_wait_s: f64,
    peak_bytes_forward: Option<u64>,
    peak_bytes_learning: Option<u64>,
    updates: u64,
    operations_passes: Option<u64>,
    events_forward: Option<u64>,
    events_learning: Option<u64>,
    spike_synapses: Option<u64>,
    neurons_fired: Option<u64>,
    spikes: Option<u64>,
    code_macs_forward: Vec<u64>,
    code_macs_learning: Vec<u64>,
});

row!(LayerRow, "layers", { step: u64, layer: String, quantity: String, value: f64 });

row!(EvalRow, "evals", {
    step: u64,
    seen: u64,
    split: String,
    metric: String,
    value: Option<f64>,
    n: u64,
    low: Option<f64>,
    high: Option<f64>,
});

row!(PredictionRow, "predictions", {
    item: String,
    split: String,
    target: Option<String>,
    scores: Vec<f64>,
    hypothesis: Option<String>,
    nll: Option<f64>,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_names_and_types_of_the_contract() {
        let columns = |schema: SchemaRef| {
            let one = |field: &Arc<Field>| {
                format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
            };
            schema.fields().iter().map(one).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(columns(LayerRow::schema()), "step UInt64, layer Utf8, quantity Utf8, value Float64");
        assert_eq!(
            columns(EvalRow::schema()),
            "step UInt64, seen UInt64, split Utf8, metric Utf8, value Float64?, n UInt64, low Float64?, high Float64?"
        );
        let contract = "step UInt64, seen UInt64, elapsed_s Float64, loss Float64?, learning_rate Float64, grad_norm Float64, \
             update_norm Float64, state_bytes UInt64?, live_bytes UInt64?, peak_bytes UInt64?, rss_bytes UInt64?, \
             device_bytes UInt64?, spike_sparsity Float64?, activation_sparsity Float64?, connection_sparsity Float64?, \
             macs_forward UInt64?, acs_forward UInt64?, macs_learning UInt64?, acs_learning UInt64?, macs_dense UInt64?, \
             op_coverage Float64?, energy_forward_pj Float64?, energy_learning_pj Float64?, ";
        let steps = columns(StepRow::schema());
        assert!(steps.starts_with(contract), "{steps}"); // what follows is ours
    }

    #[test]
    fn a_wrong_column_is_named() {
        let rows = [LayerRow { step: 1, layer: "a".into(), quantity: "b".into(), value: 0.5 }];
        let batch = LayerRow::to_batch(&rows).unwrap();
        let error = EvalRow::from_batch(Path::new("x.parquet"), &batch).unwrap_err().to_string();
        assert!(error.contains("x.parquet: no such column") && error.contains("`seen` of type UInt64"), "{error}");
        let nulls: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
        let batch = RecordBatch::try_from_iter([("value", nulls)]).unwrap();
        let error = column::<f64>(Path::new("x"), &batch, "value").unwrap_err().to_string();
        assert!(error.contains("1 nulls"), "{error}");
        assert_eq!(column::<Option<f64>>(Path::new("x"), &batch, "value").unwrap(), [None, Some(1.0)]);
    }
}
