import { PrismaMariaDb } from '@prisma/adapter-mariadb';
import { PrismaClient } from './generated/client.js';

/** The adapter also connects to MySQL. */
export function connect({ hostname, port, username, password, pathname }: URL): PrismaClient {
  const adapter = new PrismaMariaDb({
    host: hostname,
    port: Number(port),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: pathname.slice(1),
    // MySQL's caching_sha2_password asks for it on a connection without TLS.
    allowPublicKeyRetrieval: true,
  });
  return new PrismaClient({ adapter });
}
