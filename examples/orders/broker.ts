import { RowmqModule } from '@rowmq/client';

/** The address of the broker for both services, and its API key if it has one. */
export const broker = RowmqModule.forRoot({
  url: process.env['ROWMQ_URL'] ?? 'http://127.0.0.1:8080',
  apiKey: process.env['ROWMQ_ADMIN_KEY'] || undefined,
});
