/* SPDX-License-Identifier: LGPL-2.1-or-later
 * The last error of each thread. */
#include "kernels/fx.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char message[512] = "no error";
static _Thread_local int last_status = FX_OK;

const char *
fx_error_message (void)
{
  return message;
}

int
fx_error_status (void)
{
  return last_status;
}

int
fx_error (int status, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  vsnprintf (message, sizeof message, format, args);
  va_end (args);
  last_status = status;
  return status;
}
