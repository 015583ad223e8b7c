import { Module } from '@nestjs/common';
import { DashboardController } from './dashboard.controller.js';

/** The pages for people. They call the same API as every program. */
@Module({ controllers: [DashboardController] })
export class DashboardModule {}
