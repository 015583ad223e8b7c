import { RowmqModule } from '@rowmq/client';

/** Where both services find the broker, and the key to it, if it has one. */
export const broker = RowmqModule.forRoot({
  url: process.env['ROWMQ_URL'] ?? 'http://127.0.0.1:8080',
  apiKey: process.env['ROWMQ_ADMIN_KEY'] || undefined,
});
