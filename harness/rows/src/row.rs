//! Rows as Parquet columns: a table is written down once, and its struct, schema, writer and reader follow.
//!
//! `u64` is `UInt64`, `f64` is `Float64`, `bool` is `Boolean`, `String` is `Utf8`, and `Vec<f64>` and `Vec<u64>` are
//! `List<Float64>` and `List<UInt64>`; an `Option` makes its column nullable. A column has its field's name, and columns stand
//! in the order of the fields. Arrow writes, Polars reads.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, ListBuilder, UInt64Builder};
use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt64Array};
use arrow_schema::{DataType, Field};
use polars::prelude::{Column, DataFrame};

use data::error::{At, DataError, DataResult};

/// A type that a column can hold.
pub trait Value: Sized {
    /// Arrow type of the column.
    fn data_type() -> DataType;

    /// Whether the column may hold nulls.
    const NULLABLE: bool = false;

    /// The column of these values.
    fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;

    /// Values of a column that was read; `None` if it is of another type or has nulls where none may be.
    fn values(column: &Column) -> Option<Vec<Self>>;

    /// The value as text that tells it from every other; `None` for null.
    fn text(&self) -> Option<String>;

    /// The value as a number; `None` for null and for what is none.
    fn number(&self) -> Option<f64> {
        None
    }

    /// What stands for a value in files of versions before the column was added; `None` where the column is needed.
    fn absent() -> Option<Self> {
        None
    }
}

/// A type with its nullable form.
macro_rules! value {
    ($type:ty, $data_type:expr, $array:ty, $read:ident, $owned:expr, $borrowed:expr, $number:expr) => {
        impl Value for $type {
            fn data_type() -> DataType {
                $data_type
            }

            fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(values.map(|value| Some($borrowed(value))).collect::<$array>())
            }

            fn values(column: &Column) -> Option<Vec<Self>> {
                column.$read().ok()?.iter().map(|value| value.map($owned)).collect()
            }

            fn text(&self) -> Option<String> {
                Some(format!("{self:?}"))
            }

            fn number(&self) -> Option<f64> {
                $number(self)
            }
        }

        impl Value for Option<$type> {
            fn data_type() -> DataType {
                $data_type
            }

            const NULLABLE: bool = true;

            fn array<'a>(values: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(values.map(|value| value.as_ref().map($borrowed)).collect::<$array>())
            }

            fn values(column: &Column) -> Option<Vec<Self>> {
                Some(column.$read().ok()?.iter().map(|value| value.map($owned)).collect())
            }

            fn text(&self) -> Option<String> {
                self.as_ref().and_then(Value::text)
            }

            fn number(&self) -> Option<f64> {
                self.as_ref().and_then(Value::number)
            }

            fn absent() -> Option<Self> {
                Some(None)
            }
        }
    };
}

fn copied<T: Copy>(value: &T) -> T {
    *value
}

value!(u64, DataType::UInt64, UInt64Array, u64, |x| x, copied, |x: &u64| Some(*x as f64));
value!(f64, DataType::Float64, Float64Array, f64, |x| x, copied, |x: &f64| Some(*x));
value!(bool, DataType::Boolean, BooleanArray, bool, |x| x, copied, |_: &bool| None);
value!(String, DataType::Utf8, StringArray, str, str::to_owned, String::as_str, |_: &String| None);

/// Lists without nulls, of numbers of one type.
macro_rules! list {
    ($number:ty, $builder:ty, $data_type:expr, $read:ident) => {
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

            fn values(column: &Column) -> Option<Vec<Self>> {
                let lists = column.list().ok()?;
                (0..lists.len()).map(|i| lists.get_as_series(i)?.$read().ok()?.iter().collect()).collect()
            }

            fn text(&self) -> Option<String> {
                Some(format!("{self:?}"))
            }
        }
    };
}

list!(f64, Float64Builder, DataType::Float64, f64);
list!(u64, UInt64Builder, DataType::UInt64, u64);

/// An item of a list.
fn item(data_type: DataType) -> Field {
    Field::new("item", data_type, false)
}

/// A type whose values are rows of a table.
pub trait Row: Sized {
    /// Name of the table: the file is `NAME.parquet`.
    const NAME: &'static str;

    /// The columns that every file of the table has.
    fn columns() -> Vec<Field>;

    /// The rows as columns.
    fn arrays(rows: &[Self]) -> Vec<ArrayRef>;

    /// Appends the row's columns as text, each with its name; nulls are left out, so that a column that is added later changes
    /// nothing.
    fn write_text(&self, out: &mut String);

    /// Names every column that is a number and not null, with its value.
    fn numbers(&self, each: &mut dyn FnMut(&'static str, f64));

    /// Rows of a table that was read from `path`.
    ///
    /// # Errors
    /// `Corrupt` if a column is missing, of another type, or null where none may be.
    fn from_frame(path: &Path, frame: &DataFrame) -> DataResult<Vec<Self>>;
}

/// The column of a field.
pub fn field<V: Value>(name: &str) -> Field {
    Field::new(name, V::data_type(), V::NULLABLE)
}

/// Reads the column `name` of a table that came from `path`.
///
/// # Errors
/// `Corrupt` if the column is missing, of another type, or null where none may be.
pub fn column<V: Value>(path: &Path, frame: &DataFrame, name: &str) -> DataResult<Vec<V>> {
    let nulls = if V::NULLABLE { "" } else { " without nulls" };
    let refuse = |got: String| {
        DataError::corrupt(path, At::File, format!("a column `{name}` of type {}{nulls}", V::data_type()), got)
    };
    let Ok(column) = frame.column(name) else {
        let absent = (0..frame.height()).map(|_| V::absent()).collect::<Option<Vec<V>>>();
        return absent.filter(|_| V::NULLABLE).ok_or_else(|| refuse("no such column".into()));
    };
    V::values(column).ok_or_else(|| refuse(format!("type {} with {} nulls", column.dtype(), column.null_count())))
}

/// Defines a row: its struct, the columns of its table in the order of the fields, and both directions. Fields behind `beside`
/// are no columns of their own.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $row:ident = $name:literal { $($(#[$doc:meta])* pub $field:ident: $type:ty,)+ }
        $(beside { $($(#[$other_doc:meta])* pub $other:ident: $other_type:ty,)+ })?
    ) => {
        $(#[$meta])*
        pub struct $row {
            $($(#[$doc])* pub $field: $type,)+
            $($($(#[$other_doc])* pub $other: $other_type,)+)?
        }

        #[cfg(test)]
        impl $crate::row::Drawn for $row {
            fn drawn(rng: &mut rand_chacha::ChaCha8Rng) -> Self {
                Self {
                    $($field: $crate::row::Drawn::drawn(rng),)+
                    $($($other: <$other_type>::default(),)+)?
                }
            }
        }

        impl $crate::row::Row for $row {
            const NAME: &'static str = $name;

            fn columns() -> Vec<arrow_schema::Field> {
                vec![$($crate::row::field::<$type>(stringify!($field))),+]
            }

            fn arrays(rows: &[Self]) -> Vec<arrow_array::ArrayRef> {
                vec![$(<$type as $crate::row::Value>::array(rows.iter().map(|row| &row.$field))),+]
            }

            fn write_text(&self, out: &mut String) {
                $(if let Some(text) = $crate::row::Value::text(&self.$field) {
                    out.push_str(concat!(stringify!($field), "="));
                    out.push_str(&text);
                    out.push('\n');
                })+
            }

            fn numbers(&self, each: &mut dyn FnMut(&'static str, f64)) {
                $(if let Some(number) = $crate::row::Value::number(&self.$field) {
                    each(stringify!($field), number);
                })+
            }

            fn from_frame(
                path: &std::path::Path,
                frame: &polars::prelude::DataFrame,
            ) -> data::error::DataResult<Vec<Self>> {
                $(let mut $field = $crate::row::column::<$type>(path, frame, stringify!($field))?.into_iter();)+
                // All columns have as many values as the table has rows, so this stops behind the last row.
                let next = || Some(Self { $($field: $field.next()?,)+ $($($other: <$other_type>::default(),)+)? });
                Ok(std::iter::from_fn(next).collect())
            }
        }
    };
}

pub(crate) use table;

/// Rows and values of random content, for tests.
#[cfg(test)]
pub trait Drawn {
    /// One of them.
    fn drawn(rng: &mut rand_chacha::ChaCha8Rng) -> Self;
}

#[cfg(test)]
mod drawn {
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;

    use super::Drawn;

    impl Drawn for u64 {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            rng.random()
        }
    }

    impl Drawn for bool {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            rng.random()
        }
    }

    impl Drawn for f64 {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            match rng.random_range(0..8) {
                0 => Self::INFINITY,
                1 => -0.0,
                2 => Self::MIN_POSITIVE / 2.0,
                _ => rng.random::<Self>() * 1e3 - 500.0,
            }
        }
    }

    impl Drawn for String {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            (0..rng.random_range(0..6)).map(|_| rng.random::<char>()).collect()
        }
    }

    impl<T: Drawn> Drawn for Option<T> {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            (!rng.random_bool(0.4)).then(|| T::drawn(rng))
        }
    }

    impl<T: Drawn> Drawn for Vec<T> {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            (0..rng.random_range(0..4)).map(|_| T::drawn(rng)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parquet::{Metadata, read_rows, write_rows};
    use crate::{EvalRow, LayerRow, StepRow};

    #[test]
    fn columns_have_the_names_and_types_of_the_contract() {
        let columns = |columns: Vec<Field>| {
            let one = |field: &Field| {
                format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "?" } else { "" })
            };
            columns.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(columns(LayerRow::columns()), "step UInt64, layer Utf8, quantity Utf8, value Float64");
        assert_eq!(
            columns(EvalRow::columns()),
            "step UInt64, seen UInt64, split Utf8, metric Utf8, value Float64?, n UInt64, low Float64?, high Float64?"
        );
        let contract = "step UInt64, seen UInt64, elapsed_s Float64, loss Float64?, learning_rate Float64, grad_norm Float64, \
             update_norm Float64, state_bytes UInt64?, live_bytes UInt64?, peak_bytes UInt64?, rss_bytes UInt64?, \
             device_bytes UInt64?, spike_sparsity Float64?, activation_sparsity Float64?, connection_sparsity Float64?, \
             macs_forward UInt64?, acs_forward UInt64?, macs_learning UInt64?, acs_learning UInt64?, macs_dense UInt64?, \
             op_coverage Float64?, energy_forward_pj Float64?, energy_learning_pj Float64?, ";
        let steps = columns(StepRow::columns());
        assert!(steps.starts_with(contract), "{steps}"); // what follows is ours
    }

    #[test]
    fn a_wrong_column_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let rows = [LayerRow { step: 1, layer: "a".into(), quantity: "b".into(), value: 0.5 }];
        write_rows(&path, &rows, &Metadata::new()).unwrap();
        let error = read_rows::<EvalRow>(&path).unwrap_err().to_string();
        assert!(error.contains("x.parquet: no such column") && error.contains("`seen` of type UInt64"), "{error}");
        let nulls = Column::new("value".into(), [None, Some(1.0)]);
        let frame = DataFrame::new(2, vec![nulls]).unwrap();
        let error = column::<f64>(Path::new("x"), &frame, "value").unwrap_err().to_string();
        assert!(error.contains("Float64 without nulls") && error.contains("1 nulls"), "{error}");
        assert_eq!(column::<Option<f64>>(Path::new("x"), &frame, "value").unwrap(), [None, Some(1.0)]);
        let wrong = column::<Option<u64>>(Path::new("x"), &frame, "value").unwrap_err().to_string();
        assert!(wrong.contains("type f64"), "{wrong}");
        assert_eq!(column::<Option<u64>>(Path::new("x"), &frame, "added_later").unwrap(), [None, None]);
    }
}
