"""The features of SQLite, for SQLAlchemy's dialect compliance suite.

`SuiteRequirements` is cautious: features that only some databases have are closed, and their tests
skipped. The values here are those of SQLAlchemy's own test suite for SQLite, so the suite runs the
same tests here as there. A version of SQLAlchemy that does not know a name ignores it.
"""

from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

SUPPORTED = """
    autocommit isolation_level skip_autocommit_rollback independent_readonly_connections
    dbapi_lastrowid

    create_table_as create_temp_table_as table_ddl_if_exists index_ddl_if_exists unicode_ddl
    percent_schema_names server_defaults expression_server_defaults computed_columns
    computed_columns_stored computed_columns_virtual repeated_column_foreign_keys
    repeated_remote_col_foreign_keys

    ctes ctes_with_values window_functions window_range window_range_numeric tuple_in
    tuple_in_w_empty update_from regexp_match supports_bitwise_and supports_bitwise_not
    supports_bitwise_or supports_bitwise_shift supports_bitwise_xor

    json_type json_array_indexes legacy_unconditional_json_extract nvarchar_types infinity_floats
    date_historic datetime_historic datetime_literals float_or_double_precision_behaves_generically
    precision_numerics_retains_significant_digits

    views view_reflection view_column_reflection temp_table_names has_temp_table temporary_views
    check_constraint_reflection inline_check_constraint_reflection
    foreign_key_constraint_name_reflection foreign_key_constraint_option_reflection_ondelete
    foreign_key_constraint_option_reflection_onupdate
    fk_constraint_option_reflection_ondelete_noaction
    fk_constraint_option_reflection_ondelete_restrict
    fk_constraint_option_reflection_onupdate_restrict indexes_check_column_order
    indexes_with_expressions computed_columns_reflect_persisted reflects_pk_names
"""

# `independent_connections` requires concurrent writers.
UNSUPPORTED = """
    independent_connections implicitly_named_constraints json_index_supplementary_unicode_element
    parens_in_union_contained_select_w_limit_offset
    parens_in_union_contained_select_wo_limit_offset
"""


class Requirements(SuiteRequirements):
    """The requirements that SQLite meets."""

    @property
    def reflect_table_options(self) -> exclusions.compound:
        """Open if SQLAlchemy is new enough to reflect STRICT and WITHOUT ROWID."""
        known = "get_table_options" in vars(SQLiteDialect)
        return exclusions.open() if known else exclusions.closed()

    def get_order_by_collation(self, config: object) -> str:
        """Return the collation for the suite's test of ORDER BY ... COLLATE."""
        return "NOCASE"


for name in SUPPORTED.split():
    setattr(Requirements, name, exclusions.open())
for name in UNSUPPORTED.split():
    setattr(Requirements, name, exclusions.closed())
