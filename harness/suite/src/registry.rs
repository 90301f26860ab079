//! One list of kinds makes everything that depends on it: the type, its names, and how it is read from a grid.

/// Defines an enum whose variants are kinds that a grid file may name, each with its settings and what is known about it.
macro_rules! registry {
    (
        $(#[$meta:meta])* $vis:vis enum $enum:ident, $what:literal, $info_type:ty;
        $($(#[$doc:meta])* $variant:ident($settings:ty) = $info:expr;)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        $vis enum $enum {
            $($(#[$doc])* $variant($settings),)+
        }

        impl $enum {
            /// Every kind.
            pub const ALL: &[&$info_type] = &[$(&$info),+];

            /// What is known about this kind.
            #[must_use]
            pub fn info(&self) -> &'static $info_type {
                match self {
                    $(Self::$variant(_) => {
                        const INFO: &$info_type = &$info;
                        INFO
                    })+
                }
            }

            /// The settings of every kind, as JSON Schema.
            pub fn schemas(
                generator: &mut schemars::SchemaGenerator,
            ) -> Vec<(&'static str, serde_json::Value)> {
                vec![$({
                    const INFO: &$info_type = &$info;
                    (INFO.kind, generator.subschema_for::<$settings>().to_value())
                }),+]
            }

            /// Reads the settings that a grid file gives, `kind` among them; `name` is the grid's.
            ///
            /// # Errors
            /// At the place in the file, for a kind that is unknown and for settings that are wrong.
            pub fn read(written: &grid::Node, sources: &grid::Sources) -> grid::ConfigResult<Self> {
                let kinds: Vec<&str> = Self::ALL.iter().map(|info| info.kind).collect();
                let (kind, mut keys) = grid::take_kind(written, &kinds, sources)?;
                keys.take("name");
                let what = format!("{} `{kind}`", $what);
                $(if kind == $info.kind {
                    return grid::read_as(&keys, &what, sources).map(Self::$variant);
                })+
                Err(sources.error(written.origin, format!("unknown {what}")).expected_one_of(&kind, &kinds))
            }
        }
    };
}

pub(crate) use registry;
