"""Sessions on servers without session endpoints: kept in the account's bucket."""
