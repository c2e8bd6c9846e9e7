/* gstfluxtrainsink-private.h: the parts of fluxtrainsink. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 *   gstfluxtrainsink.c        the class, what comes in, states
 *   gstfluxtrainsink-props.c  properties
 *   gstfluxtrainsink-enums.c  what they choose from
 *   gstfluxtrainsink-run.c    the two running designs: when a step is due
 *   gstfluxtrainsink-work.c   opening the model, a step, saving
 *   gstfluxtrainsink-model.c  what is known of the model; one of the Hub
 *   gstfluxtrainsink-bus.c    messages
 *   gstfluxtrainsink-meter.c  the paired loss
 *   gstfluxtrainsink-report.c what report-to asks for
 *   gstfluxtrainsink-push.c   what push-to-hub asks for
 */
#pragma once

#include "elements/gstfluxcommon.h"
#include "elements/gstfluxcontext.h"
#include "elements/gstfluxhub.h"
#include "elements/gstfluxtensor.h"
#include "elements/gstfluxtrainsink.h"
#include "flux/hub/card.h"
#include "flux/report/report.h"
#include "flux/train/meter.h"
#include "flux/train/trainer.h"
#include "flux/vae/vae.h"

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN (gst_flux_train_sink_debug);

typedef enum { MODE_AUTO, MODE_ONE_SHOT, MODE_STREAM } GstFluxTrainMode;

typedef enum {
  STATE_IDLE,
  STATE_COLLECTING,
  STATE_OPENING,
  STATE_TRAINING,
  STATE_FINISHED,
  STATE_FAILED
} GstFluxTrainState;

typedef struct {
  FluxSample *sample;
  guint epoch; /* of the stream */
} GstFluxHeldSample;

struct _GstFluxTrainSink {
  GstBaseSink parent;

  /* Properties; the object lock. */
  gchar *model, *device, *location, *output, *resume_from, *targets;
  FluxLoraFormat lora_format;
  gint quantization;  /* fx_qtype */
  gint compute_dtype; /* fx_dtype */
  gchar *weights_cache;
  gint mode;             /* GstFluxTrainMode */
  FluxTrainConfig train; /* but for targets */
  guint64 checkpoint_interval;
  guint checkpoints_limit;
  guint meter_triples;
  guint vram_budget; /* MiB */
  guint report_to;   /* FluxReportTo */
  gchar *report_dir;
  gchar *http_address, *http_token;
  guint http_port;
  gchar *push_to_hub, *trigger_words;
  gboolean push_private;
  gboolean paused;
  GCond unpaused; /* paused may have changed */
  /* Read-only ones. */
  GstFluxTrainState state;
  guint64 step;
  gdouble loss;

  /* READY and above; of a model on the Hub, once caps have come. */
  gchar *path; /* of the model */
  FluxConfig shape;
  FluxVaeInfo vae;
  gchar *vae_fingerprint;
  GstFluxHub hub;
  GstPadEventFunction base_event; /* of the base class's pad */
  GstFluxTraining *training;
  gboolean async_off; /* by us, not by the property */
  FluxReport *report; /* PAUSED and above; or NULL */
  FluxCard *card;     /* the same, for push-to-hub */

  /* PAUSED and above: of the streaming thread or, once EOS is held, of the task. */
  GstFluxTensorInfo info; /* of the current caps */
  GArray *held; /* GstFluxHeldSample: samples that were not trained on in a stream */
  FluxSample *empty_prompt;
  gboolean streaming; /* design R; else T */
  guint epoch;        /* being trained on */
  FluxModel *base;
  FluxOffload offload; /* of the base: NONE, or STREAM when it does not fit else */
  FluxTrainer *trainer;
  FluxMeter *meter;   /* or NULL */
  guint64 saved_step; /* the last one that is on disk */
  GstFluxProgress opening, training_progress, pushing;
  GstClockTime step_time;
  GstTask *task;
  GRecMutex task_lock;
  GstEvent *eos; /* held while the task trains */

  /* Set by other threads; atomic. */
  gint stopping;        /* flushing or leaving PAUSED */
  gint unlocked;        /* render must wait for preroll: pausing or flushing */
  gint finish;          /* EOS was sent to the element: end after this step */
  gint want_checkpoint; /* the action signal */
};

/* ---- .c ---- */
/* From any thread: end after this step, and save. */
void gst_flux_train_sink_end_early (GstFluxTrainSink *self);

/* ---- -enums.c ---- */
GType gst_flux_train_mode_get_type (void);
GType gst_flux_train_state_get_type (void);
GType gst_flux_train_lora_format_get_type (void);
GType gst_flux_train_optimizer_get_type (void);
GType gst_flux_train_lr_scheduler_get_type (void);
GType gst_flux_train_weighting_get_type (void);
GType gst_flux_train_timestep_precision_get_type (void);

/* ---- -props.c ---- */
void gst_flux_train_sink_install_properties (GstFluxTrainSinkClass *klass);
void gst_flux_train_sink_init_properties (GstFluxTrainSink *self);
void gst_flux_train_sink_free_properties (GstFluxTrainSink *self);

/* ---- -model.c ---- */
/* What is known of the model without its weights; nothing yet when it is on the Hub and
 * has not been downloaded. */
gboolean gst_flux_train_sink_read_model (GstFluxTrainSink *self, GError **error);
void gst_flux_train_sink_forget_model (GstFluxTrainSink *self);
/* Whether samples of such caps fit the model. */
gboolean gst_flux_train_sink_check_caps (
    GstFluxTrainSink *self, const GstFluxTensorInfo *info, GError **error);
/* Once: downloads the model when caps come that need it. */
void gst_flux_train_sink_watch_caps (GstFluxTrainSink *self);

/* ---- -run.c ---- */
/* FALSE: stop what is being done, somebody flushes. Waits while the pipeline is paused.
 */
gboolean gst_flux_train_sink_may_go_on (GstFluxTrainSink *self);
/* A sample has been added to held; with the PREROLL_LOCK. */
GstFlowReturn gst_flux_train_sink_sample_came (GstFluxTrainSink *self);
/* Takes event; with the PREROLL_LOCK. */
gboolean gst_flux_train_sink_eos_came (GstFluxTrainSink *self, GstEvent *event);
/* Waits for the task to end, and drops held samples and EOS. */
void gst_flux_train_sink_clear_run (GstFluxTrainSink *self);

/* ---- -work.c ---- */
/* Where the adapter goes; g_free() it. */
gchar *gst_flux_train_sink_get_lora_path (GstFluxTrainSink *self);
/* Before hours of training, not after them: can what is learnt be written? */
gboolean gst_flux_train_sink_check_output (GstFluxTrainSink *self, GError **error);
/* Loads the model, prepares the trainer, resumes. Nothing to do when it has been done. */
gboolean gst_flux_train_sink_open (GstFluxTrainSink *self, GError **error);
/* One optimiser step, its messages, and a checkpoint when one is due. */
gboolean gst_flux_train_sink_step (
    GstFluxTrainSink *self, FluxSample *const *samples, guint n, GError **error);
/* Steps done, and those to do. */
guint64 gst_flux_train_sink_get_step (GstFluxTrainSink *self);
guint64 gst_flux_train_sink_get_max_steps (GstFluxTrainSink *self);
/* A checkpoint now when somebody asked for one: between steps, and what is on disk is not
 * written again. */
void gst_flux_train_sink_save_if_asked (GstFluxTrainSink *self);
/* Writes the adapter; and a checkpoint when that was asked for, or steps are left. */
gboolean gst_flux_train_sink_finish (GstFluxTrainSink *self, GError **error);
/* Saves what is not on disk, posts error (taken) with where that is. */
void gst_flux_train_sink_fail (GstFluxTrainSink *self, GError *error);
/* After an interruption: saves what is not on disk and frees the model. */
void gst_flux_train_sink_close (GstFluxTrainSink *self);

/* ---- -meter.c ---- */
/* Reads the meter and posts flux-meter, where meter-triples asks for it. */
gboolean gst_flux_train_sink_start_meter (GstFluxTrainSink *self, GError **error);
gboolean gst_flux_train_sink_end_meter (GstFluxTrainSink *self, GError **error);

/* ---- -report.c ---- */
GType gst_flux_report_to_get_type (void);
/* For a run: opens the reports and the card of what is pushed, and shows them the
 * pictures of previews; nothing to do when neither is asked for. */
gboolean gst_flux_train_sink_start_telling (GstFluxTrainSink *self, GError **error);
void gst_flux_train_sink_end_telling (GstFluxTrainSink *self);
void gst_flux_train_sink_report_step (GstFluxTrainSink *self,
    const FluxStepResult *result, FluxSample *const *samples, guint n);
void gst_flux_train_sink_report_paired_loss (
    GstFluxTrainSink *self, guint64 step, gdouble loss);
void gst_flux_train_sink_report_state (GstFluxTrainSink *self, const gchar *state);
void gst_flux_train_sink_report_saved (GstFluxTrainSink *self, guint64 step);
/* A property of the training and not of its base classes, which reports and cards tell.
 */
gboolean gst_flux_train_sink_is_setting (const GParamSpec *spec);

/* ---- -push.c ---- */
/* What can be known at the start; nothing to do when push-to-hub is not set. */
gboolean gst_flux_train_sink_start_push (GstFluxTrainSink *self, GError **error);
void gst_flux_train_sink_end_push (GstFluxTrainSink *self);
/* Before the model is loaded: whether the Hub knows the token. */
gboolean gst_flux_train_sink_check_push (GstFluxTrainSink *self, GError **error);
void gst_flux_train_sink_note_step (GstFluxTrainSink *self, const FluxStepResult *result,
    FluxSample *const *samples, guint n);
void
gst_flux_train_sink_note_paired_loss (GstFluxTrainSink *self, guint64 step, gdouble loss);
void gst_flux_train_sink_note_picture (
    GstFluxTrainSink *self, const FluxReportPicture *picture);
/* After the adapter was written, in the thread that trains. */
gboolean gst_flux_train_sink_push (GstFluxTrainSink *self, GError **error);

/* ---- -bus.c ---- */
void gst_flux_train_sink_set_state (GstFluxTrainSink *self, GstFluxTrainState state);
/* While the property paused has been seen, in the thread that trains. */
void gst_flux_train_sink_tell_paused (GstFluxTrainSink *self, gboolean paused);
void gst_flux_train_sink_post_step (GstFluxTrainSink *self, const FluxStepResult *result);
void gst_flux_train_sink_post_checkpoint (
    GstFluxTrainSink *self, const gchar *location, gboolean final);

G_END_DECLS
