export { type Broker, createMigratedDatabase, freePort, startBroker, startReaper } from './processes.js';
