/**
 * Products that speak MySQL's protocol and are no MySQL or MariaDB with InnoDB. RowMQ's guarantees
 * rest on InnoDB's locks. The version number does not tell these products apart, because some let
 * their users choose it.
 */
const PRODUCTS: readonly { readonly name: string; readonly announces: RegExp; readonly reason: string }[] = [
  {
    name: 'Vitess or PlanetScale',
    announces: /vitess|planetscale|vtgate/i,
    reason:
      'it answers LOCK TABLES with success and locks nothing, so a reaper would drop messages that are still owed; its users get errors from JSON_TABLE besides',
  },
  {
    name: 'TiDB',
    announces: /tidb/i,
    reason:
      'it accepts FOR UPDATE SKIP LOCKED and takes no lock, so two consumers would get one message; LOCK TABLES does not make writers wait',
  },
  {
    name: 'OceanBase',
    announces: /oceanbase|obproxy/i,
    reason: 'its tables are not InnoDB’s, and nobody has tested which of RowMQ’s locks it takes',
  },
  {
    name: 'NDB Cluster',
    announces: /-cluster\b|-ndb-|mysql cluster/i,
    reason:
      'a statement sees half of another transaction’s COMMIT there, LOCK TABLES binds one SQL node only, and tables have no partitions by range',
  },
  {
    name: 'PolarDB-X',
    announces: /polardb-?x|tddl|x-cluster/i,
    reason: 'it has no LOCK TABLES, and cannot move a message to another shard',
  },
  {
    name: 'a product without InnoDB',
    announces: /singlestore|memsql|starrocks|\bdoris\b|databend|matrixone|\bdolt\b|xpand|clustrix|clickhouse/i,
    reason: 'its locks are not those of InnoDB',
  },
];

/**
 * Names the product that cannot carry RowMQ, and why. Undefined if the server is no such product.
 *
 * @param announced its version, version comment and similar texts
 * @param defaultEngine `@@default_storage_engine`
 */
export function unusableProduct(
  announced: readonly string[],
  defaultEngine = 'InnoDB',
): { name: string; reason: string } | undefined {
  const text = announced.join(' ');
  return PRODUCTS.find(
    ({ name, announces }) => announces.test(text) || (name === 'NDB Cluster' && /^ndb/i.test(defaultEngine)),
  );
}
