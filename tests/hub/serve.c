/* tests/hub/serve.c: the tests' Hub by itself, for tests/reference/check_hub.py: prints
 * its address, serves until its input ends, then prints the requests it had.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <string.h>

#include "tests/hub/server.h"

int
main (void)
{
  TestHub *hub = test_hub_new ();
  g_autofree guint8 *weights = g_malloc0 (20 << 20);

  memset (weights, 7, 20 << 20);
  test_hub_add (hub, "model_index.json", "{}", 2, FALSE);
  test_hub_add (hub, "vae/config.json", "{\"a\": 1}", 8, FALSE);
  test_hub_add (hub, "vae/diffusion_pytorch_model.safetensors", weights, 20 << 20, TRUE);
  hub->part_size = 8 << 20;
  printf ("http://127.0.0.1:%u\n", hub->port);
  fflush (stdout);
  while (getchar () != EOF)
    ;
  for (guint i = 0; i < hub->log->len; i++)
    printf ("%s\n", (char *)hub->log->pdata[i]);
  test_hub_free (hub);
  return 0;
}
