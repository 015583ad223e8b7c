/**
 * The isolation level of the session, as in `READ-COMMITTED`. No server tells the level that `SET
 * TRANSACTION` gave to one transaction.
 */
export const ISOLATION_LEVEL = '/*!80000 @@SESSION.transaction_isolation *//*M! @@SESSION.tx_isolation */';

/** 0 if no transaction is open. MySQL does not tell, so it is always 1 there. */
export const IN_TRANSACTION = 'COALESCE(/*M! IF(@@SESSION.autocommit, @@SESSION.in_transaction, 1), */ 1)';
