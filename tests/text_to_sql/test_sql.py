"""Queries are put together as the policy says."""

from helpers.text_to_sql.domains import Column, Schema, Table
from helpers.text_to_sql.sql import Query, Ref, linked, literal, text_literals

CITY = Column("city")
CUSTOMERS = Table("customers", "customer", ("customers",), (Column("id", "INTEGER", key=True), CITY))
PRODUCTS = Table(
    "products", "product", ("products",), (Column("sku", "INTEGER", key=True), Column("title", label=True))
)
TOTAL = Column("total", "REAL", (1, 9))
ORDERS = Table(
    "orders",
    "order",
    ("orders",),
    (Column("customer_id", "INTEGER", parent="customers"), Column("sku", "INTEGER", parent="products"), TOTAL),
)
SHOP = Schema("shop", {t.name: t for t in (CUSTOMERS, PRODUCTS, ORDERS)})


def test_one_table_has_no_alias():
    query = Query([Ref(ORDERS, TOTAL, "AVG({c})")], [ORDERS], [Ref(ORDERS, TOTAL, "{c} > 5")])
    assert query.sql(SHOP) == "SELECT AVG(total) FROM orders WHERE total > 5"


def test_the_table_with_the_foreign_key_is_t1():
    query = Query(["COUNT(*)"], [CUSTOMERS, ORDERS], [Ref(CUSTOMERS, CITY, "{c} = 'Oslo'")])
    joined = "orders AS T1 JOIN customers AS T2 ON T1.customer_id = T2.id"
    assert query.sql(SHOP) == f"SELECT COUNT(*) FROM {joined} WHERE T2.city = 'Oslo'"


def test_three_tables_are_joined_by_their_own_keys():
    sql = Query([Ref(PRODUCTS, PRODUCTS.label), Ref(CUSTOMERS, CITY)], [ORDERS]).sql(SHOP)
    assert sql == (
        "SELECT T3.title, T2.city FROM orders AS T1 JOIN customers AS T2 ON T1.customer_id = T2.id "
        "JOIN products AS T3 ON T1.sku = T3.sku"
    )


def test_all_clauses_stand_in_their_order():
    total = Ref(ORDERS, TOTAL)
    where = [Ref(ORDERS, TOTAL, "{c} > 1"), Ref(ORDERS, TOTAL, "{c} < 0")]
    query = Query([total], [ORDERS], where, either=True, distinct=True, group=total, having="COUNT(*) > 2")
    query.order, query.descending, query.limit = "COUNT(*)", True, 3
    assert query.sql(SHOP) == (
        "SELECT DISTINCT total FROM orders WHERE total > 1 OR total < 0 GROUP BY total HAVING COUNT(*) > 2 "
        "ORDER BY COUNT(*) DESC LIMIT 3"
    )


def test_text_is_quoted_and_read_again():
    assert literal("O'Neill") == "'O''Neill'" and literal(5) == "5" and literal(2.5) == "2.5"
    assert text_literals("SELECT a FROM t WHERE b = 'O''Neill' OR c LIKE '%ab%'") == ["O'Neill", "ab"]


def test_links_to_a_table():
    assert [(t.name, c.name) for t, c in linked(SHOP.tables.values(), CUSTOMERS)] == [("orders", "customer_id")]
    assert not linked(SHOP.tables.values(), ORDERS)
