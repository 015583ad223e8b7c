import { ConfigurableModuleBuilder, Module, type OnApplicationShutdown } from '@nestjs/common';
import { RowmqHttpClient, type RowmqClientOptions } from './rowmq-http-client.js';

const { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN } = new ConfigurableModuleBuilder<RowmqClientOptions>()
  .setClassMethodName('forRoot')
  .build();

/**
 * Gives a Nest application a {@link RowmqHttpClient}: `imports: [RowmqModule.forRoot({ url, apiKey })]`, or `forRootAsync` where the settings
 * have to be injected. Its connections are closed when the application shuts down.
 */
@Module({
  providers: [
    {
      provide: RowmqHttpClient,
      inject: [MODULE_OPTIONS_TOKEN],
      useFactory: (options: RowmqClientOptions) => new RowmqHttpClient(options),
    },
  ],
  exports: [RowmqHttpClient],
})
export class RowmqModule extends ConfigurableModuleClass implements OnApplicationShutdown {
  constructor(private readonly client: RowmqHttpClient) {
    super();
  }

  async onApplicationShutdown(): Promise<void> {
    await this.client.close();
  }
}
